"""Is a folder what the catalogue says? sha256 once, then size and time of change until a file is touched."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from cypher.hub.catalogue import CheckedFile

_CHUNK = 1 << 20


def sha256_of(path: Path) -> str:
    """Lower-case hexadecimal sha256 of a file's content."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def is_good(path: Path, file: CheckedFile) -> bool:
    """Whether ``path`` has the size and the sha256 of ``file``."""
    return path.is_file() and path.stat().st_size == file.size and sha256_of(path) == file.sha256


def broken_files(folder: Path, files: Sequence[CheckedFile]) -> list[str]:
    """Paths of ``files`` that are missing from ``folder`` or differ; empty when all is well.

    Hashing 90 MB costs a fifth of a second, so a stamp beside the folder remembers the size and the time of
    change of every file once checked. A file whose stamp differs is hashed again. A cache that cannot be
    written keeps no stamp and is hashed each time.

    Args:
        folder: That should have them.
        files: With size and sha256 of each.
    """
    stamp_file = folder.with_name(folder.name + ".checked.json")
    stamps = _read_stamps(stamp_file)
    broken, seen = [], {}
    for file in files:
        path = folder / file.path
        if not path.is_file():
            broken.append(file.path)
            continue
        status = path.stat()
        stamp = [status.st_size, status.st_mtime_ns, file.sha256]
        if stamps.get(file.path) == stamp or is_good(path, file):
            seen[file.path] = stamp
        else:
            broken.append(file.path)
    if seen != stamps and folder.is_dir():
        with contextlib.suppress(OSError):
            beside = stamp_file.with_name(stamp_file.name + ".new")
            beside.write_text(json.dumps(seen), "utf-8")
            beside.replace(stamp_file)
    return broken


def _read_stamps(path: Path) -> dict[str, list[int | str]]:
    """The remembered stamps; none when the file is absent or unreadable, which only costs a hash."""
    try:
        stamps = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return stamps if isinstance(stamps, dict) else {}
