"""Where fetched files live, who may write there, and whether the network may be used."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cypher.errors import CypherError, ModelError

OTHER_CACHE = "set CYPHER_CACHE to a folder elsewhere"


def cache_folder() -> Path:
    """The one folder for everything fetched: ``CYPHER_CACHE``, else ``~/.cache/cypher``."""
    named = os.environ.get("CYPHER_CACHE")
    return Path(named).expanduser().absolute() if named else Path.home() / ".cache" / "cypher"


def is_offline(offline: bool | None = None) -> bool:
    """Whether the network is off: the argument if given, else ``CYPHER_OFFLINE`` or ``HF_HUB_OFFLINE``."""
    if offline is not None:
        return offline
    switches = (os.environ.get(name, "") for name in ("CYPHER_OFFLINE", "HF_HUB_OFFLINE"))
    return any(switch.strip().lower() in {"1", "true", "yes", "on"} for switch in switches)


@contextmanager
def one_writer(path: Path) -> Iterator[None]:
    """Let one process at a time prepare ``path``; the others wait here, then find it ready.

    The lock file stays behind: removing it would let two processes hold locks on two different files.
    """
    from filelock import FileLock

    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_name(path.name + ".lock")):
        yield


def require_space(folder: Path, wanted: int) -> None:
    """Raise :class:`ModelError` unless the disk that holds ``folder`` has ``wanted`` bytes free."""
    free = shutil.disk_usage(folder).free
    if free < wanted:
        raise ModelError(
            f"{free / 1e6:.0f} MB free for {folder}",
            needed=f"{wanted / 1e6:.0f} MB",
            change=f"free some space or {OTHER_CACHE}",
        )


@contextmanager
def writing(folder: Path, *, kind: type[CypherError] = ModelError, otherwise: str = OTHER_CACHE) -> Iterator[None]:
    """Turn a full disk or a forbidden folder into ``kind``; ``otherwise`` says what else to do.

    Args:
        folder: That is written into, for the message.
        kind: What is raised.
        otherwise: What else to do than to free space.

    Raises:
        CypherError: Of that kind, for every ``OSError`` of the block.
    """
    try:
        yield
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise kind(f"the disk that holds {folder} is full", change=f"free some space or {otherwise}") from error
        raise kind(
            f"{error.filename or folder} cannot be written ({error.strerror or error})", change=otherwise
        ) from error
