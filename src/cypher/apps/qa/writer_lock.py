"""One writer at a time: the lock file of a store. The system releases it when a process ends, however it ends."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeAlias

from filelock import FileLock, Timeout

from cypher.apps.qa.store_failures import store_failures
from cypher.errors import StoreError

LOCK_FILE = "writer.lock"

WAIT_SECONDS = 600.0
"""How long a writer waits for another one."""

OnWait: TypeAlias = Callable[[str], None]
"""Called once, with a line to show, when another process is writing."""


def writer_lock(folder: Path) -> FileLock:
    """The lock of the store in ``folder``; taking it again in the same thread nests."""
    return FileLock(folder / LOCK_FILE)


@contextmanager
def holding(
    lock: FileLock, folder: Path, *, on_wait: OnWait | None = None, wait_seconds: float = WAIT_SECONDS
) -> Iterator[None]:
    """Hold the lock inside the block.

    Raises:
        StoreError: Another process still has it after ``wait_seconds``, or the folder cannot be written.
    """
    with store_failures(folder):
        taken = _take(lock, 0)
        if not taken and on_wait is not None:
            on_wait(f"another process is writing to {folder}; waiting up to {wait_seconds:.0f} seconds for it")
        taken = taken or _take(lock, wait_seconds)
    if not taken:
        raise StoreError(
            f"another process has held {lock.lock_file} for {wait_seconds:.0f} seconds",
            change="wait until it has finished indexing, or end it",
        )
    try:
        yield
    finally:
        lock.release()


def _take(lock: FileLock, seconds: float) -> bool:
    try:
        lock.acquire(timeout=seconds)
    except Timeout:
        return False
    return True
