"""Plain text: the file's own characters, so that an offset in the document is an offset in the file."""

from __future__ import annotations

import codecs
import re

from cypher.documents.document import Document
from cypher.errors import DataError

# UTF-32-LE begins with the bytes of UTF-16-LE, so the longer marks come first.
_BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
# Tab, line feed, vertical tab, form feed, carriage return and escape (terminal colours) occur in real text.
_CONTROLS = re.compile(r"[\x00-\x08\x0e-\x1a\x1c-\x1f\x7f]")
_MAX_CONTROL_SHARE = 0.01


def decode_text(content: bytes, path: str, *, declared: str | None = None) -> tuple[str, str]:
    """Characters of a text file, and the encoding that gave them.

    A byte order mark decides; else UTF-8; else ``declared`` (what the file says of itself); else cp1252,
    which is what Western files that are not UTF-8 nearly always are. Newlines stay as they are. The mark
    itself is not part of the text.

    Args:
        content: Bytes of the whole file.
        path: Where it came from, for the error.
        declared: A Python codec name, tried when the bytes are not UTF-8.

    Returns:
        The text and one of ``"utf-8"``, ``"utf-8-sig"``, ``"utf-16"``, ``"utf-32"``, ``declared``,
        ``"cp1252"``.

    Raises:
        DataError: The file is binary: undecodable, with NUL characters, or full of control characters.

    Example:
        >>> decode_text("café".encode("cp1252"), "menu.txt")
        ('café', 'cp1252')
    """
    marked = next((name for mark, name in _BYTE_ORDER_MARKS if content.startswith(mark)), None)
    candidates = [marked] if marked else ["utf-8", *([declared] if declared else []), "cp1252"]
    for encoding in candidates:
        try:
            text = content.decode(encoding)
        except UnicodeDecodeError:
            continue
        controls = len(_CONTROLS.findall(text))
        if "\x00" in text or controls > max(2, _MAX_CONTROL_SHARE * len(text)):
            break
        return text, encoding
    raise DataError(f"{path} is a binary file", needed="text (UTF-8, UTF-16 with a byte order mark, or cp1252)")


def read_text(content: bytes, path: str) -> Document:
    r"""A plain text file, character for character.

    Args:
        content: Bytes of the file.
        path: Where it came from.

    Raises:
        DataError: Binary content.

    Example:
        >>> read_text(b"one\r\ntwo", "a.txt").text
        'one\r\ntwo'
    """
    text, encoding = decode_text(content, path)
    return Document(text=text, meta={"path": path, "format": "text", "encoding": encoding})
