"""Files written whole or not at all, beside their place first, then renamed; and JSON read with its errors said."""

from __future__ import annotations

import errno
import json
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from cypher.errors import CypherError, DataError


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A new, empty file to write into, which takes the place of ``path`` when the block ends well.

    A reader of ``path`` sees the old content or the new, never a part; after an error or Ctrl-C the old
    one stands and nothing is left behind. Missing parent folders are made. A link keeps pointing where it
    points: its target is replaced. An existing file keeps its permissions.

    Args:
        path: Where the content belongs.

    Yields:
        Path of the file to write, in the same folder and with the same suffix.

    Raises:
        DataError: The place cannot be written: no permission, a folder or device, a full disk.

    Example:
        >>> import tempfile
        >>> target = Path(tempfile.mkdtemp()) / "numbers.txt"
        >>> with replacing(target) as partial:
        ...     _ = partial.write_text("1 2 3")
        >>> target.read_text()
        '1 2 3'
    """
    partial: Path | None = None
    try:
        target = Path(os.path.realpath(path))
        mode = _existing_mode(target)
        target.parent.mkdir(parents=True, exist_ok=True)
        # Libraries choose the format by suffix, so the partial file ends like its target.
        partial = target.with_name(f".{target.stem[:100]}.{secrets.token_hex(4)}.part{target.suffix}")
        os.close(os.open(partial, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666 if mode is None else mode))
        if mode is not None:
            partial.chmod(mode)
        yield partial
        _flush_to_disk(partial)
        os.replace(partial, target)
    except (OSError, ValueError) as error:
        if isinstance(error, ValueError) and partial is not None:
            raise  # the writer's own error; only a path with a NUL fails before there is a partial file
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
        is_full = isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EDQUOT}
        raise DataError(
            f"{os.fspath(path)} cannot be written: {reason}",
            change="free some space on that disk, and run it again" if is_full else None,
        ) from error
    finally:
        if partial is not None:
            with suppress(OSError):
                partial.unlink(missing_ok=True)


def write_text(path: str | os.PathLike[str], text: str) -> Path:
    """Writes ``text`` as UTF-8 in one step; see `replacing`.

    Args:
        path: Where it belongs.
        text: Written as it is; newlines are not changed.

    Returns:
        The path.

    Raises:
        DataError: The place cannot be written.
    """
    return write_bytes(path, text.encode("utf-8"))


def write_bytes(path: str | os.PathLike[str], content: bytes) -> Path:
    """Writes ``content`` in one step; see `replacing`.

    Args:
        path: Where it belongs.
        content: The whole file.

    Returns:
        The path.

    Raises:
        DataError: The place cannot be written.
    """
    with replacing(path) as partial:
        partial.write_bytes(content)
    return Path(path)


def read_json(
    path: str | os.PathLike[str], *, kind: type[CypherError] = DataError, needed: str = "a JSON object"
) -> dict[str, Any]:
    """The JSON object in a file.

    Args:
        path: Of the file.
        kind: What is raised when it is none.
        needed: What the message says there should have been.

    Raises:
        CypherError: Of that kind: the file is missing, cannot be read, or holds something else.
    """
    try:
        values = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
        raise kind(f"{os.fspath(path)} cannot be read ({reason})", needed=needed) from error
    if not isinstance(values, dict):
        raise kind(f"{os.fspath(path)} holds a {type(values).__name__}", needed=needed)
    return values


def _existing_mode(target: Path) -> int | None:
    """Permission bits of what is there; renaming over a folder or a device must never be tried."""
    try:
        status = target.stat()
    except FileNotFoundError:
        return None
    if not stat.S_ISREG(status.st_mode):
        kind = "a folder" if stat.S_ISDIR(status.st_mode) else "a pipe, a socket or a device"
        raise DataError(f"{target} is {kind}", needed="the path of a file to write")
    return stat.S_IMODE(status.st_mode)


def _flush_to_disk(path: Path) -> None:
    """Without it a power cut after the rename may leave an empty file under the new name."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
