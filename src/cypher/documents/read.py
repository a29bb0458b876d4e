"""Files and folders to documents: the only place where a format is chosen."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TypeAlias

from cypher.documents.document import Document
from cypher.documents.docx import read_docx
from cypher.documents.html import read_html
from cypher.documents.markdown import read_markdown
from cypher.documents.pdf import read_pdf
from cypher.documents.source import read_bytes, shown, unreadable
from cypher.documents.text import read_text
from cypher.documents.vtt import read_vtt
from cypher.errors import DataError

AnyPath: TypeAlias = str | os.PathLike[str]
Reader: TypeAlias = Callable[[bytes, str], Document]

READERS: dict[str, Reader] = {
    ".txt": read_text,
    ".text": read_text,
    ".rst": read_text,
    ".md": read_markdown,
    ".markdown": read_markdown,
    ".html": read_html,
    ".htm": read_html,
    ".pdf": read_pdf,
    ".docx": read_docx,
    ".vtt": read_vtt,
}
"""What reads a file, by its suffix in lower case."""

Identity: TypeAlias = tuple[int, int]  # device and inode: one file, by whatever path

_SUFFIXES = " ".join(READERS)


def read_document(path: AnyPath) -> Document:
    """One file as a document; the suffix, in any case, chooses the reader.

    ``meta`` holds ``path`` (as given), ``format`` (text, markdown, html, pdf, docx, vtt), ``title`` where
    the file has one, and ``encoding`` for the formats that are text. Size and time of change are left out,
    so that a file which is touched or copied back keeps its ``id``.

    Args:
        path: The file.

    Raises:
        DataError: Missing, not permitted, over 200 MiB, of an unknown suffix, empty, binary, encrypted, or
            broken; the line begins with the path.

    Example:
        >>> import tempfile
        >>> note = Path(tempfile.mkdtemp()) / "note.txt"
        >>> _ = note.write_bytes(b"Tea at four.")
        >>> read_document(note).text
        'Tea at four.'
    """
    name = shown(path)
    reader = READERS.get(Path(path).suffix.lower())
    if reader is None and os.path.isfile(path):
        raise DataError(f"{name} has a suffix that is not read", needed=f"one of {_SUFFIXES}")
    content = read_bytes(path)
    assert reader is not None, "read_bytes refuses whatever is not a regular file"
    document = reader(content, name)
    if not document.text.strip():
        raise DataError(f"{name} is empty (white space only)")
    return document


def find_files(
    paths: AnyPath | Iterable[AnyPath], *, on_error: Callable[[DataError], None] | None = None
) -> list[Path]:
    """The files to read: those named, and those below named folders whose suffix has a reader.

    Folders are walked in order of names. Hidden files and folders (``.git``, ``.venv``) and the lock files
    of Word (``~$…``) are left out unless named. Links are followed; a file or folder reached twice, by a
    link or by two of the ``paths``, counts once, so loops end.

    Args:
        paths: One path or several.
        on_error: Called with the error of each closed folder or broken link below; without it, the first one
            is raised.

    Returns:
        Paths that begin with the path they were found under; named files are kept whatever their suffix,
        so that `read_document` can refuse them by name.

    Raises:
        DataError: A path does not exist, a folder has no file to read, or no path was given.
    """
    given = [paths] if isinstance(paths, str | os.PathLike) else list(paths)
    if not given:
        raise DataError("no path was given", needed="at least one file or folder")
    found: dict[Identity, Path] = {}
    for path in given:
        try:
            status = os.stat(path)
        except (OSError, ValueError) as error:
            raise unreadable(path, error) from error
        if not os.path.isdir(path):
            found.setdefault((status.st_dev, status.st_ino), Path(path))
            continue
        empty = True
        for item in _walk(Path(path)):
            empty = False
            if isinstance(item, DataError):
                if on_error is None:
                    raise item
                on_error(item)
            else:
                identity, file = item
                found.setdefault(identity, file)
        if empty:
            raise DataError(f"{shown(path)} has no file to read", needed=f"files with one of {_SUFFIXES}")
    return list(found.values())


def _walk(root: Path) -> Iterator[tuple[Identity, Path] | DataError]:
    """Files below ``root`` that have a reader, and problems; deep trees need no recursion."""
    seen: set[Identity] = set()
    waiting = [root]
    while waiting:
        path = waiting.pop()
        has_reader = path.suffix.lower() in READERS
        try:
            status = os.stat(path)
            identity = (status.st_dev, status.st_ino)
            if stat.S_ISREG(status.st_mode) and has_reader:
                yield identity, path
            elif stat.S_ISDIR(status.st_mode) and identity not in seen:
                seen.add(identity)
                names = sorted(os.listdir(path), reverse=True)
                waiting += [path / name for name in names if not name.startswith((".", "~$"))]
        except OSError as error:
            # A dangling link matters when it looks like a document; a closed folder always does.
            if has_reader or isinstance(error, PermissionError):
                yield unreadable(path, error)
