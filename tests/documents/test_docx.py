"""Word files."""

from __future__ import annotations

import io
import zipfile
from typing import Any

import docx
import pytest
from docx.oxml import parse_xml
from docx.oxml.ns import nsdecls

from cypher.documents.docx import read_docx
from cypher.errors import DataError


def saved(word: Any) -> bytes:
    out = io.BytesIO()
    word.save(out)
    return out.getvalue()


def test_paragraphs_headings_lists_and_tables_in_order() -> None:
    word = docx.Document()
    word.add_heading("Report", level=0)
    word.add_paragraph("Before  the\ttable.")
    table = word.add_table(rows=2, cols=2)
    for cell, text in zip([c for row in table.rows for c in row.cells], ["k", "v", "a", "1"], strict=True):
        cell.text = text
    table.rows[1].cells[1].add_paragraph("2")
    word.add_heading("Part", level=2)
    word.add_paragraph("one", style="List Bullet")
    word.add_paragraph("two", style="List Number")
    word.add_paragraph("")
    word.add_paragraph("After.")
    document = read_docx(saved(word), "a.docx")
    assert document.text == (
        "# Report\n\nBefore the table.\n\n| k | v |\n| a | 1 2 |\n\n## Part\n\n- one\n- two\n\nAfter."
    )
    assert document.meta == {"path": "a.docx", "format": "docx", "title": "Report"}


def test_title_of_the_properties_comes_first() -> None:
    word = docx.Document()
    word.core_properties.title = "From the properties"
    word.add_heading("Heading", level=1)
    assert read_docx(saved(word), "a.docx").meta["title"] == "From the properties"


def test_tracked_changes_controls_and_text_boxes() -> None:
    word = docx.Document()
    xml = (
        "<w:p {ns}><w:r><w:t xml:space='preserve'>kept </w:t></w:r>"
        "<w:del><w:r><w:delText>gone</w:delText></w:r></w:del>"
        "<w:ins><w:r><w:t>added</w:t></w:r></w:ins>"
        "<w:r><mc:AlternateContent xmlns:mc='http://schemas.openxmlformats.org/markup-compatibility/2006'>"
        "<mc:Choice><w:txbxContent><w:p><w:r><w:t> box</w:t></w:r></w:p></w:txbxContent></mc:Choice>"
        "<mc:Fallback><w:txbxContent><w:p><w:r><w:t>box</w:t></w:r></w:p></w:txbxContent></mc:Fallback>"
        "</mc:AlternateContent></w:r></w:p>"
    )
    control = "<w:sdt {ns}><w:sdtContent><w:p><w:r><w:t>control</w:t></w:r></w:p></w:sdtContent></w:sdt>"
    for part in (xml, control):
        word.element.body.insert(0, parse_xml(part.replace("{ns}", nsdecls("w"))))
    assert read_docx(saved(word), "a.docx").text == "control\n\nkept added box"


def test_nested_tables_are_told_once() -> None:
    word = docx.Document()
    cell = word.add_table(rows=1, cols=1).rows[0].cells[0]
    cell.text = "outer"
    cell.add_table(rows=1, cols=1).rows[0].cells[0].text = "inner"
    assert read_docx(saved(word), "a.docx").text.count("inner") == 1


def test_refused_files() -> None:
    with pytest.raises(DataError, match="has no text"):
        read_docx(saved(docx.Document()), "a.docx")
    other_zip = io.BytesIO()
    with zipfile.ZipFile(other_zip, "w") as archive:
        archive.writestr("hello.txt", "no Word file")
    with pytest.raises(DataError, match="is not a readable Word file"):
        read_docx(other_zip.getvalue(), "a.docx")
    whole = saved(docx.Document())
    with pytest.raises(DataError, match="is not a readable Word file"):
        read_docx(whole[: len(whole) // 2], "a.docx")


def test_broken_xml_inside_is_refused() -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(saved(docx.Document()))) as old, zipfile.ZipFile(out, "w") as new:
        for name in old.namelist():
            new.writestr(name, b"<w:document" if name == "word/document.xml" else old.read(name))
    with pytest.raises(DataError, match="is not a readable Word file"):
        read_docx(out.getvalue(), "a.docx")


def test_damage_anywhere_is_an_error_for_people_or_no_error() -> None:
    word = docx.Document()
    word.add_paragraph("Some text.")
    whole = saved(word)
    outcomes = [outcome(whole[:at] + b"#?#" + whole[at + 3 :]) for at in range(0, len(whole), 53)]
    assert {line.split()[0] for line in outcomes} <= {"read", "a.docx"}
    assert any("decompressing" in line or "decompress" in line for line in outcomes)


def outcome(content: bytes) -> str:
    try:
        return f"read {read_docx(content, 'a.docx').text}"
    except DataError as error:
        return str(error)


def test_zip_bombs_are_refused_before_they_are_unpacked() -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        part = archive.open("word/document.xml", "w", force_zip64=True)
        with part:
            for _ in range(401):
                part.write(bytes(2**20))
    assert len(out.getvalue()) < 2**21
    with pytest.raises(DataError, match="unpacks to 401 MiB: needs at most 400 MiB"):
        read_docx(out.getvalue(), "a.docx")
