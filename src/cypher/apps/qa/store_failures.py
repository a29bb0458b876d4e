"""Failures of the storage engine as one line for a person: full disk, closed folder, damaged files."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cypher.apps.qa.store_settings import remedy
from cypher.errors import StoreError

ENGINE_ERRORS = (RuntimeError, OSError, ValueError)
"""What LanceDB raises: RuntimeError for I/O and damage, ValueError for a table that has lost its manifests."""

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_CLOSED = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})


@contextmanager
def store_failures(folder: Path) -> Iterator[None]:
    """Turn what the engine raises inside the block into `StoreError`; keep other code out of the block."""
    try:
        yield
    except ENGINE_ERRORS as error:
        raise _for_people(folder, error) from error


def _for_people(folder: Path, error: Exception) -> StoreError:
    number = error.errno if isinstance(error, OSError) else _number(str(error))
    if number in _FULL:
        return StoreError(
            f"the disk that holds {folder} is full; what was indexed before is kept",
            change="free some space and run the same command again",
        )
    if number in _CLOSED:
        return StoreError(
            f"{folder}: permission denied", change="make it readable and writable, or name another --store"
        )
    if number in {errno.EMFILE, errno.ENFILE}:
        return StoreError(f"{folder}: too many files are open", change="raise the limit with `ulimit -n 4096`")
    return StoreError(f"{folder} is damaged ({_reason(error)})", change=remedy(folder))


def _number(message: str) -> int | None:
    """The operating system's error number, which the engine passes on as text only."""
    found = re.search(r"\(os error (\d+)\)", message)
    return int(found[1]) if found else None


def _reason(error: Exception) -> str:
    """The engine's message without the places in its source, at most 160 characters."""
    line = " ".join(str(error).split())
    line = re.sub(r",? ?/\S+\.rs:\d+(:\d+)?", "", line).removeprefix("lance error: ")
    return line if len(line) <= 160 else f"{line[:160]}…"
