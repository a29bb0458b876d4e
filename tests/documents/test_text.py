"""Encodings of plain text, and Markdown's headings."""

from __future__ import annotations

import pytest

from cypher.documents.markdown import find_headings, read_markdown
from cypher.documents.text import decode_text, read_text

SENTENCE = "Größe: 5 €, “naïve” – ok.\r\nline\rline\n"


@pytest.mark.parametrize(
    ("content", "encoding"),
    [
        (SENTENCE.encode("utf-8"), "utf-8"),
        (SENTENCE.encode("utf-8-sig"), "utf-8-sig"),
        (SENTENCE.encode("utf-16"), "utf-16"),
        (b"\xfe\xff" + SENTENCE.encode("utf-16-be"), "utf-16"),
        (SENTENCE.encode("utf-32"), "utf-32"),
        (SENTENCE.encode("cp1252"), "cp1252"),
    ],
)
def test_text_is_exactly_the_decoded_file(content: bytes, encoding: str) -> None:
    document = read_text(content, "a.txt")
    assert document.text == SENTENCE
    assert document.meta == {"path": "a.txt", "format": "text", "encoding": encoding}


def test_declared_encoding_is_tried_when_utf8_fails() -> None:
    assert decode_text("Привет".encode("koi8-r"), "a.html", declared="koi8-r") == ("Привет", "koi8-r")
    assert decode_text("Привет".encode(), "a.html", declared="koi8-r") == ("Привет", "utf-8")


def test_terminal_colours_and_a_stray_control_character_are_text() -> None:
    assert read_text(b"\x1b[1mbold\x1b[0m and a bell\x07", "log.txt").text.startswith("\x1b")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("# One\ntext\n### Three ###\n", [(0, 1, "One"), (11, 3, "Three")]),
        ("Title\r\n=====\r\n\r\nPart\r\n----\r\n", [(0, 1, "Title"), (16, 2, "Part")]),
        ("a\r# Old\rb", [(2, 1, "Old")]),
        ("```\n# comment\n```\n# Real", [(18, 1, "Real")]),
        ("~~~~\n# c\n~~~\n# d\n~~~~\n  # Real", [(24, 1, "Real")]),
        ("    # code\n#hashtag\n####### seven\n#\n", []),
        ("- item\n---\n\n| a |\n|---|\n", []),
        ("---\ntitle: x\n# yaml comment\n---\n# Real\n", [(32, 1, "Real")]),
        ("# [Link](http://x.y) and `code` **bold**", [(0, 1, "Link and code bold")]),
        ("# [Mars](http://x.y/Mars_(god)) ![red](a.png)", [(0, 1, "Mars red")]),
        ("# <b>Bold</b> and 1 < 2", [(0, 1, "Bold and 1 < 2")]),
        ("# a[1] and [b] (c)", [(0, 1, "a[1] and [b] (c)")]),
    ],
)
def test_headings(text: str, expected: list[tuple[int, int, str]]) -> None:
    assert find_headings(text) == expected


@pytest.mark.parametrize(
    ("content", "title"),
    [
        (b"intro\n\n## Second\n\n# First\n", "First"),
        (b"---\ntitle: 'From the front'\n---\n# Heading\n", "From the front"),
        (b"no headings", None),
    ],
)
def test_markdown_title(content: bytes, title: str | None) -> None:
    document = read_markdown(content, "a.md")
    assert document.text == content.decode()
    assert document.meta.get("title") == title


@pytest.mark.parametrize(
    "part", ["[", "![", "<", "[a](", "[a](b(", "[a](b", "(", "[a]((b)", "](", "*", "!", "= ", "-", "~", "#"]
)
@pytest.mark.parametrize("place", ["# {}", "x{}\n===", "<h1>{}", "[a](({}", "# {} #", "x\n{}x", "```{}"])
def test_a_long_line_takes_no_longer_than_it_is_long(part: str, place: str) -> None:
    """A search that began anew at every mark would take minutes for half a million of them."""
    text = place.format(part * 500_000)
    assert all(heading.start < 2 for heading in find_headings(text))
