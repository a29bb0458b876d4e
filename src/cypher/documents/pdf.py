"""PDF: the text layer, page by page."""

from __future__ import annotations

import io
import logging
import re
from typing import TYPE_CHECKING

from cypher.documents.document import Document, MetaValue
from cypher.documents.source import missing_library
from cypher.errors import DataError

if TYPE_CHECKING:
    from pypdf import PdfReader

# What no text holds: a form feed would count as a page border; NUL and lone surrogates come of broken fonts.
_NOT_TEXT = re.compile("[\x00\x0c\ud800-\udfff]")
_HYPHENATED = re.compile(r"(?<![^\W\d_])[^\W\d_]+-[^\W\d_]+(?![\w-])")
# A word, or its part, that ends a line with a hyphen, and its rest on the next line.
_DIVIDED = re.compile(r"((?<![\w-])[^\W\d_][\w-]*?)-\n([^\W\d_]+)(?!\w)")


def read_pdf(content: bytes, path: str) -> Document:
    """Text layer of a PDF; pages are joined with a form feed, and ``pages`` says where each one starts.

    The number of form feeds before a character, plus one, is its page. A file encrypted with an empty
    user password (common for "no printing" files) is read.

    Args:
        content: Bytes of the file.
        path: Where it came from.

    Raises:
        DataError: Encrypted, broken, scanned without a text layer, or pypdf is not installed.
    """
    try:
        from pypdf import PdfReader
        from pypdf.errors import DependencyError, PyPdfError
    except ImportError as error:
        raise missing_library(path, "pypdf") from error
    # pypdf logs every oddity of a file; unless the program set up logging, Python would print them.
    logging.getLogger("pypdf").addHandler(logging.NullHandler())
    try:
        reader = PdfReader(io.BytesIO(content))
        if reader.is_encrypted and not reader.decrypt(""):
            raise DataError(f"{path} is encrypted", needed="a PDF without a password", change="decrypt it first")
        pages = [_NOT_TEXT.sub(" ", page.extract_text()).strip() for page in reader.pages]
        pages = _join_divided_words(pages)
        title = _title(reader)
    except DependencyError as error:
        raise missing_library(path, "cryptography") from error
    # Broken files surface as many kinds of errors: pypdf walks objects whose types the file only promises.
    except (
        PyPdfError,
        LookupError,
        ValueError,
        TypeError,
        AttributeError,
        ArithmeticError,
        AssertionError,
        NotImplementedError,
        RecursionError,
        OSError,
    ) as error:
        raise DataError(f"{path} is not a readable PDF ({error})", change="export it anew") from error
    if not any(pages):
        raise DataError(
            f"{path} has no text layer ({len(pages)} pages, scanned?)",
            needed="a PDF with text",
            change=f"run an OCR program over it, such as: ocrmypdf {path} OUT.pdf",
        )
    starts = [0]
    for page in pages[:-1]:
        starts.append(starts[-1] + len(page) + 1)
    meta: dict[str, MetaValue] = {"path": path, "format": "pdf"}
    if title:
        meta["title"] = title
    return Document(text="\f".join(pages), meta=meta, pages=tuple(starts))


def _join_divided_words(pages: list[str]) -> list[str]:
    """Takes out the hyphens of words divided at line ends, which would hide the words from any search.

    The hyphen stays where the word has another one ("state-of-the-/art") or where the document writes it
    with a hyphen elsewhere, and before a capital.
    """
    hyphenated = {word for page in pages for word in _HYPHENATED.findall(page)}

    def join(match: re.Match[str]) -> str:
        left, right = match.groups()
        keep = "-" in left or right[0].isupper() or f"{left}-{right}" in hyphenated
        return f"{left}-{right}" if keep else left + right

    return [_DIVIDED.sub(join, page) for page in pages]


def _title(reader: PdfReader) -> str:
    metadata = reader.metadata
    title = metadata.title if metadata is not None else None
    return " ".join(_NOT_TEXT.sub(" ", title).split()) if isinstance(title, str) else ""
