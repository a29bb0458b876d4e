"""Word files (.docx): paragraphs, headings, lists and tables in the order of the document."""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from cypher.documents.document import Document, MetaValue
from cypher.documents.layout import TextLayout
from cypher.documents.source import MAX_BYTES, missing_library
from cypher.errors import DataError

if TYPE_CHECKING:
    from docx.oxml.xmlchemy import BaseOxmlElement

_WORD = "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}"
# What was deleted or moved away, and second copies of text boxes kept for old versions of Word.
_SKIPPED = frozenset(
    {
        f"{_WORD}del",
        f"{_WORD}moveFrom",
        "{http://schemas.openxmlformats.org/markup-compatibility/2006}Fallback",
    }
)
_SPACES = frozenset({f"{_WORD}br", f"{_WORD}cr", f"{_WORD}tab"})
_OLE_MAGIC = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"


def read_docx(content: bytes, path: str) -> Document:
    """Text of a Word file, with Markdown's plain marks for headings, lists and tables.

    Tracked insertions, text boxes and content controls are text like any other; deletions, headers,
    footers and foot notes are left out. The title is the file's property, else the paragraph of style
    "Title", else the first heading.

    Args:
        content: Bytes of the file.
        path: Where it came from.

    Raises:
        DataError: Not a Word file, encrypted, broken, without text, or python-docx is not installed.
    """
    try:
        import docx
        from docx.opc.exceptions import OpcError
    except ImportError as error:
        raise missing_library(path, "python-docx") from error
    if content.startswith(_OLE_MAGIC):
        raise DataError(f"{path} is encrypted or an old .doc file", needed="a .docx file", change="save it as .docx")
    _check_archive(content, path)
    try:
        word = docx.Document(io.BytesIO(content))
        # Style names are English in every language of Word; only their ids are translated.
        styles = {style.style_id: (style.name or "").lower() for style in word.styles}
        property_title = (word.core_properties.title or "").strip()
        body = word.element.body
    # Damage shows in the archive, in its compression, in the XML (SyntaxError), or as parts that do not fit.
    except (
        OpcError,
        zipfile.BadZipFile,
        zlib.error,
        EOFError,
        OSError,
        RuntimeError,
        SyntaxError,
        LookupError,
        ValueError,
        TypeError,
        AttributeError,
    ) as error:
        raise _broken(path, error) from error
    layout = TextLayout()
    titles: list[str] = []
    _write_blocks(layout, body, styles, titles)
    text = layout.text()
    if not text:
        raise DataError(f"{path} has no text", needed="paragraphs or tables with words")
    meta: dict[str, MetaValue] = {"path": path, "format": "docx"}
    if property_title or titles:
        meta["title"] = property_title or titles[0]
    return Document(text=text, meta=meta)


def _broken(path: str, error: object) -> DataError:
    return DataError(f"{path} is not a readable Word file ({error})", change="open it in Word and save it anew")


def _check_archive(content: bytes, path: str) -> None:
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            parts = archive.infolist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        raise _broken(path, error) from error
    if any(part.compress_type not in {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED} for part in parts):
        raise _broken(path, "its compression is not that of Word")
    size = sum(part.file_size for part in parts)
    # Twice the file limit: pictures are stored as they are, text shrinks by ten at most.
    if size > 2 * MAX_BYTES:
        raise DataError(
            f"{path} unpacks to {size / 2**20:,.0f} MiB", needed=f"at most {2 * MAX_BYTES / 2**20:,.0f} MiB"
        )


def _write_blocks(layout: TextLayout, parent: BaseOxmlElement, styles: dict[str, str], titles: list[str]) -> None:
    for element in parent:
        if element.tag == f"{_WORD}p":
            _write_paragraph(layout, element, styles, titles)
        elif element.tag == f"{_WORD}tbl":
            _write_table(layout, element)
        elif element.tag not in _SKIPPED:  # content controls, tracked insertions, custom XML
            _write_blocks(layout, element, styles, titles)


def _write_paragraph(layout: TextLayout, paragraph: BaseOxmlElement, styles: dict[str, str], titles: list[str]) -> None:
    named = paragraph.find(f"{_WORD}pPr/{_WORD}pStyle")
    style = styles.get(named.get(f"{_WORD}val", ""), "") if named is not None else ""
    text = " ".join("".join(_text_of(paragraph)).split())
    if not text:
        return
    numbered = paragraph.find(f"{_WORD}pPr/{_WORD}numPr") is not None
    if style == "title" or style.startswith("heading "):
        level = style.removeprefix("heading ")
        layout.block(prefix="#" * (min(int(level), 6) if level.isdecimal() else 1) + " ")
        titles.insert(0 if style == "title" else len(titles), text)
        layout.write(text)
        layout.block()
    elif numbered or style.startswith("list "):
        layout.line(prefix="- ")
        layout.write(text)
        layout.line()
    else:
        layout.block()
        layout.write(text)
        layout.block()


def _write_table(layout: TextLayout, table: BaseOxmlElement) -> None:
    layout.block()
    for row in table.iter(f"{_WORD}tr"):
        cells = [
            " ".join("".join(_text_of(cell)).split())
            for cell in row.iter(f"{_WORD}tc")
            if next(cell.iterancestors(f"{_WORD}tr")) is row
        ]
        if any(cells) and next(row.iterancestors(f"{_WORD}tbl")) is table:
            layout.start_row()
            for cell in cells:
                layout.start_cell()
                layout.write(cell)
            layout.end_row()
    layout.block()


def _text_of(element: BaseOxmlElement) -> Iterator[str]:
    """Characters below an element; depth is bounded by the parser's own limit of 256."""
    for child in element:
        if child.tag == f"{_WORD}t":
            yield child.text or ""
        elif child.tag in _SPACES:
            yield " "
        elif child.tag == f"{_WORD}noBreakHyphen":
            yield "-"
        elif child.tag not in _SKIPPED:
            yield from _text_of(child)
            if child.tag == f"{_WORD}p":  # paragraphs of a cell or a text box
                yield " "
