"""What a file is known by in a store, and which stored files are gone."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TypeAlias

from cypher.documents import find_files
from cypher.documents.source import shown
from cypher.errors import DataError

AnyPath: TypeAlias = str | os.PathLike[str]


def real_path(path: AnyPath) -> str:
    """The path without links, as text that can be stored."""
    return shown(os.path.realpath(path))


def sources_below(sources: Iterable[str], path: str) -> list[str]:
    """The sources that are this path or lie below it.

    Example:
        >>> sources_below(["/docs/a.txt", "/docs2/b.txt"], "/docs")
        ['/docs/a.txt']
    """
    below = path.rstrip("/") + "/"
    return [source for source in sources if source == path or source.startswith(below)]


def is_below(source: str, paths: Iterable[AnyPath]) -> bool:
    """Whether a stored source is one of some files or lies in one of some folders, by its name or by where links lead.

    A document that came without a file, whose source is no absolute path, is nowhere.

    Example:
        >>> is_below("/docs/a.txt", ["/docs"]), is_below("document:1", ["/"])
        (True, False)
    """
    if not os.path.isabs(source):
        return False
    return any(
        bool(sources_below([source], shown(os.path.abspath(path))))
        or bool(sources_below({source, real_path(source)}, real_path(path)))
        for path in paths
    )


def find_sources(
    roots: Sequence[AnyPath], known: Iterable[str], *, on_error: Callable[[DataError], None]
) -> dict[str, Path]:
    """The files to read, by what they are known as, in the order of `cypher.documents.find_files`.

    Args:
        roots: Files and folders.
        known: Sources in the store.
        on_error: Called with the error of each closed folder or broken link.

    Raises:
        DataError: A root does not exist; or has nothing to read, and nothing of it is stored either.
    """
    reading = [root for root in roots if not _is_emptied(root, known)]
    # Without any root the finder says what is missing.
    found = find_files(reading, on_error=on_error) if reading or not roots else []
    return {_source(path, reading): path for path in found}


def deleted_sources(roots: Sequence[AnyPath], files: dict[str, Path], known: Iterable[str]) -> list[str]:
    """Stored sources below the roots whose file is gone, or is read under another name now.

    Args:
        roots: Files and folders.
        files: What was found below them.
        known: Sources in the store.
    """
    identities = {_identity(path) for path in files.values()}
    candidates = {source for root in roots for source in sources_below(known, real_path(root))} - set(files)
    return sorted(source for source in candidates if _identity(source) in {None, *identities})


def size_of(path: Path) -> int:
    """Bytes of a file, 0 when it cannot be asked."""
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _is_emptied(root: AnyPath, known: Iterable[str]) -> bool:
    """Whether a folder of which something is stored has nothing to read any more."""
    if not os.path.isdir(root) or not sources_below(known, real_path(root)):
        return False
    try:
        find_files(root, on_error=lambda error: None)
    except DataError:
        return True
    return False


def _source(path: Path, roots: Sequence[AnyPath]) -> str:
    """The real path of the root it was found under, then its way down from there.

    Links below the root keep their names, so that a link which is removed leaves the store.
    """
    for root in roots:
        if os.path.isdir(root) and path.is_relative_to(root):
            return os.path.join(real_path(root), shown(path.relative_to(root)))
    return real_path(path)


def _identity(path: AnyPath) -> tuple[int, int] | str | None:
    """Device and inode; ``None`` for a file that is gone; a text for one that only cannot be seen."""
    try:
        status = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError:
        return "closed"
    return status.st_dev, status.st_ino
