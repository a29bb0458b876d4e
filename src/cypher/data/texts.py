"""Text files to documents: a line each, a paragraph each, or whole files, cut where a pattern says."""

from __future__ import annotations

import bz2
import gzip
import re
import zlib
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Literal

from cypher.errors import ConfigError, DataError

Documents = Literal["line", "paragraph", "file"]


@dataclass(frozen=True, kw_only=True)
class TextRow:
    """Text to learn a language from.

    Args:
        texts: Documents, one or several that are read one after the other; none runs into the next without a token
            between them.
    """

    texts: tuple[str, ...]


def read_texts(path: Path, *, documents: Documents = "line", document_start: str | None = None) -> list[TextRow]:
    r"""Documents of a UTF-8 file, plain, ``.gz`` or ``.bz2``; those without a character that shows are left out.

    Args:
        path: Of the file.
        documents: A document is a line, a stretch between empty lines, or the whole file.
        document_start: Regular expression; with ``file``, a line in which it matches begins a document.

    Raises:
        ConfigError: The pattern is no regular expression, or is given where it has no meaning.
        DataError: The file cannot be read, or has no text.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "two.txt"
        >>> _ = path.write_text("= One =\nA line.\n= Two =\nAnother.\n")
        >>> [row.texts for row in read_texts(path, documents="file", document_start="^= ")]
        [('= One =\nA line.',), ('= Two =\nAnother.',)]
    """
    if document_start is not None and documents != "file":
        raise ConfigError(f"document_start with documents = {documents!r}", needed="documents = 'file'")
    text = read_text(path)
    if documents == "line":
        parts = text.split("\n")
    elif documents == "paragraph":
        parts = re.split(r"\n[ \t]*\n", text)
    else:
        parts = _cut(text, document_start)
    rows = [TextRow(texts=(part.strip(),)) for part in parts if part.strip()]
    if not rows:
        raise DataError(f"{path} has no text", needed="a file with at least one line")
    return rows


def _cut(text: str, document_start: str | None) -> list[str]:
    if document_start is None:
        return [text]
    try:
        pattern = re.compile(document_start, re.MULTILINE)
    except re.error as error:
        raise ConfigError(f"document_start = {document_start!r} ({error})", needed="a regular expression") from None
    starts = [text.rfind("\n", 0, found.start()) + 1 for found in pattern.finditer(text)]
    borders = sorted({0, *starts, len(text)})
    return [text[first:last] for first, last in pairwise(borders)]


def is_text_file(path: Path) -> bool:
    """Whether it ends in ``.txt``, packed or not.

    Example:
        >>> is_text_file(Path("valid.txt.gz"))
        True
    """
    return path.name.lower().removesuffix(".gz").removesuffix(".bz2").endswith(".txt")


def read_lines(path: Path) -> list[str]:
    """All lines of a file, empty ones too, for files whose lines stand beside those of another."""
    lines = read_text(path).split("\n")
    return lines[:-1] if lines[-1] == "" else lines


def read_text(path: Path) -> str:
    r"""The whole of a UTF-8 file, plain, gzipped or bzipped, line ends as ``\n``.

    Raises:
        DataError: It cannot be read.
    """
    try:
        content = path.read_bytes()
        if content.startswith(b"\x1f\x8b"):
            content = gzip.decompress(content)
        elif content.startswith(b"BZh"):
            content = bz2.decompress(content)
        return content.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 ({error})") from error
    except (EOFError, zlib.error, ValueError) as error:
        raise DataError(f"{path} is a broken archive ({error})", change="fetch it again") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror or error})") from error
