"""Real files of every format, made without the readers under test."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import pytest

PdfMaker = Callable[..., bytes]


def minimal_pdf(*pages: str, title: str = "") -> bytes:
    """A PDF written by hand; each page shows its lines in Helvetica, no line means an empty page."""
    objects = ["<< /Type /Catalog /Pages 2 0 R >>", ""]
    objects.append("<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica /Encoding /WinAnsiEncoding >>")
    kids = []
    for page in pages:
        lines = "".join(f"({line}) Tj T* " for line in page.split("\n")) if page else ""
        stream = f"BT /F1 12 Tf 14 TL 72 720 Td {lines}ET"
        objects.append(f"<< /Length {len(stream)} >>\nstream\n{stream}\nendstream")
        objects.append(
            "<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] "
            f"/Resources << /Font << /F1 3 0 R >> >> /Contents {len(objects)} 0 R >>"
        )
        kids.append(f"{len(objects)} 0 R")
    objects[1] = f"<< /Type /Pages /Kids [{' '.join(kids)}] /Count {len(kids)} >>"
    objects.append(f"<< /Title ({title}) >>")
    out = io.BytesIO(b"%PDF-1.4\n")
    out.seek(0, io.SEEK_END)
    offsets = []
    for number, content in enumerate(objects, start=1):
        offsets.append(out.tell())
        out.write(f"{number} 0 obj\n{content}\nendobj\n".encode("latin-1"))
    table = out.tell()
    entries = "".join(f"{offset:010d} 00000 n \n" for offset in offsets)
    out.write(f"xref\n0 {len(objects) + 1}\n0000000000 65535 f \n{entries}".encode())
    out.write(f"trailer << /Size {len(objects) + 1} /Root 1 0 R /Info {len(objects)} 0 R >>\n".encode())
    out.write(f"startxref\n{table}\n%%EOF\n".encode())
    return out.getvalue()


def encrypted_pdf(user_password: str, algorithm: str) -> bytes:
    """A PDF of one page, encrypted."""
    from pypdf import PdfReader, PdfWriter

    writer = PdfWriter(clone_from=PdfReader(io.BytesIO(minimal_pdf("The secret is out."))))
    writer.encrypt(user_password=user_password, owner_password="owner", algorithm=algorithm)
    out = io.BytesIO()
    writer.write(out)
    return out.getvalue()


@pytest.fixture
def make_pdf() -> PdfMaker:
    return minimal_pdf


@pytest.fixture
def make_encrypted_pdf() -> PdfMaker:
    return encrypted_pdf


@pytest.fixture
def library(tmp_path: Path) -> Path:
    """A folder with a readable file of each format, hidden files, foreign files and broken ones."""
    import docx

    root = tmp_path / "library"
    (root / "deep" / "deeper").mkdir(parents=True)
    (root / ".git").mkdir()
    (root / ".git" / "description.txt").write_text("hidden folder")
    (root / ".hidden.txt").write_text("hidden file")
    (root / "~$report.docx").write_bytes(b"lock file")
    (root / "picture.png").write_bytes(b"\x89PNG\r\n")
    (root / "a.txt").write_text("Plain text.")
    (root / "b.MD").write_text("# Guide\n\nMarked text.")
    (root / "c.html").write_text("<title>Page</title><p>Page text.")
    (root / "deep" / "d.pdf").write_bytes(minimal_pdf("Paged text."))
    word = docx.Document()
    word.add_paragraph("Word text.")
    word.save(str(root / "deep" / "e.docx"))
    (root / "deep" / "deeper" / "f.vtt").write_text("WEBVTT\n\n00:01.000 --> 00:02.000\nSpoken text.\n")
    return root
