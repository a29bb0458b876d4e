"""Text layers of PDFs."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from cypher.documents.pdf import _join_divided_words, read_pdf
from cypher.errors import DataError

PdfMaker = Callable[..., bytes]


def test_pages_are_counted_by_form_feeds(make_pdf: PdfMaker) -> None:
    document = read_pdf(make_pdf("First page.", "", "Third page."), "a.pdf")
    assert document.text == "First page.\f\fThird page."
    assert document.pages == (0, 12, 13)
    for offset in range(len(document.text)):
        assert document.page_at(offset) == document.text.count("\f", 0, offset) + 1
    assert document.meta == {"path": "a.pdf", "format": "pdf"}


def test_title(make_pdf: PdfMaker) -> None:
    assert read_pdf(make_pdf("Text.", title="A  report"), "a.pdf").meta["title"] == "A report"


def test_words_divided_at_line_ends_are_joined(make_pdf: PdfMaker) -> None:
    page = "an exam-\nple of long-\nterm care and state-of-the-\nart non-\nEnglish work;\nthe long-term view 5-\n6"
    text = read_pdf(make_pdf(page), "a.pdf").text
    assert text == ("an example of long-term care and state-of-the-art non-English work;\nthe long-term view 5-\n6")


@pytest.mark.parametrize("algorithm", ["RC4-128", "AES-128", "AES-256"])
def test_encryption(make_encrypted_pdf: PdfMaker, algorithm: str) -> None:
    assert read_pdf(make_encrypted_pdf("", algorithm), "a.pdf").text == "The secret is out."
    with pytest.raises(DataError, match=r"a\.pdf is encrypted: needs a PDF without a password"):
        read_pdf(make_encrypted_pdf("secret", algorithm), "a.pdf")


def test_scanned_pages_have_no_text_layer(make_pdf: PdfMaker) -> None:
    with pytest.raises(DataError, match=r"a\.pdf has no text layer \(2 pages, scanned\?\).*OCR"):
        read_pdf(make_pdf("", ""), "a.pdf")


def test_damage_anywhere_is_an_error_for_people_or_no_error(
    make_pdf: PdfMaker, capfd: pytest.CaptureFixture[str]
) -> None:
    whole = make_pdf("Some text here.", "And there.")
    for place in range(0, len(whole), 7):
        for damaged in (whole[:place], whole[:place] + b"<<[(" + whole[place + 4 :]):
            assert outcome(damaged).startswith(("read ", "a.pdf is not a readable PDF", "a.pdf has no text"))
    assert capfd.readouterr() == ("", "")


def outcome(content: bytes) -> str:
    try:
        return f"read {read_pdf(content, 'a.pdf').text}"
    except DataError as error:
        return str(error)


def test_a_long_run_of_letters_takes_no_longer_than_it_is_long() -> None:
    """A search that began anew at every letter would take minutes for half a million of them."""
    pages = ["x" * 500_000, "ab-" * 200_000, "a-\nb " * 100_000]
    assert _join_divided_words(pages) == [*pages[:2], "ab " * 100_000]
