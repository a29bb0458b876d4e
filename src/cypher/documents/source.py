"""From a path to its bytes: the limits and the one-line errors that every format shares."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from cypher.errors import DataError

MAX_BYTES = 200 * 2**20
"""Largest file that is read, in bytes: text of this size is thousands of books, or a dump by mistake."""


def shown(path: str | os.PathLike[str]) -> str:
    r"""The path as text that can be printed and stored: bytes that are not UTF-8 become ``\xNN``.

    Example:
        >>> shown(Path("notes/a.txt"))
        'notes/a.txt'
    """
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def read_bytes(path: str | os.PathLike[str], *, max_bytes: int = MAX_BYTES) -> bytes:
    """Content of one regular file.

    Args:
        path: The file.
        max_bytes: Files larger than this are refused.

    Raises:
        DataError: Missing, a folder, a pipe or device, not permitted, too large, or empty.
    """
    name = shown(path)
    try:
        # A pipe would block forever on open, so the kind is asked first.
        status = os.stat(path)
        mode, size = status.st_mode, status.st_size
        if stat.S_ISDIR(mode):
            raise DataError(f"{name} is a folder", needed="a file")
        if not stat.S_ISREG(mode):
            raise DataError(f"{name} is a pipe, a socket or a device", needed="a regular file")
        content = b""
        if size <= max_bytes:
            with open(path, "rb") as file:
                content = file.read(max_bytes + 1)  # it may have grown, or be of a kind that has no size
    except (OSError, ValueError) as error:  # ValueError: a NUL character inside the path
        raise unreadable(path, error) from error
    if max(size, len(content)) > max_bytes:
        raise DataError(
            f"{name} has {max(size, len(content)) / 2**20:,.0f} MiB",
            needed=f"at most {max_bytes / 2**20:,.0f} MiB a file",
            change="split it into parts",
        )
    if not content:
        raise DataError(f"{name} is empty (0 bytes)")
    return content


def unreadable(path: str | os.PathLike[str], error: OSError | ValueError) -> DataError:
    """The line for a path that the operating system would not open or list."""
    name = shown(path)
    if isinstance(error, FileNotFoundError):
        return DataError(f"{name} does not exist", needed="a file or a folder")
    if isinstance(error, PermissionError):
        return DataError(f"{name}: permission denied", change=f"chmod u+r {name}")
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return DataError(f"{name} cannot be read: {reason}")


def missing_library(path: str, library: str) -> DataError:
    """The line for a format whose library is not installed."""
    suffix = Path(path).suffix
    return DataError(f"{path}: reading {suffix} files", needed=library, change='pip install "nlp-cypher[qa]"')
