"""The self-contained page."""

from __future__ import annotations

import base64
import hashlib
import re
from pathlib import Path

from selectolax.lexbor import LexborHTMLParser

from cypher.documents import Span, read_document
from cypher.files import write_text
from cypher.report import page, render_spans


def test_page_needs_nothing_from_outside() -> None:
    html = page("Answers", [render_spans("Paris.", [Span(start=0, end=5, layer="answer")])])
    tree = LexborHTMLParser(html)
    assert not re.search(r"https?://|@import|url\(", html)
    assert not tree.css("script, link, iframe, img, [style], [onclick]")
    assert "prefers-color-scheme: dark" in html
    assert "@media print" in html


def test_the_policy_allows_exactly_the_style_sheet() -> None:
    tree = LexborHTMLParser(page("t", []))
    policy = tree.css_first("meta[http-equiv=Content-Security-Policy]").attributes["content"] or ""
    style = tree.css_first("style").text()
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    rules = dict(rule.split(" ", 1) for rule in policy.split("; "))
    assert rules == {
        "default-src": "'none'",
        "style-src": f"'sha256-{digest}'",
        "base-uri": "'none'",
        "form-action": "'none'",
    }


def test_every_colour_of_a_span_has_a_style() -> None:
    spans = [Span(start=n, end=n + 1, layer=f"l{n}") for n in range(12)]
    classes = set(re.findall(r'class="(c\d+)"', render_spans("abcdefghijkl", spans)))
    styled = set(re.findall(r"mark\.(c\d+) ", page("t", [])))
    assert classes == styled


def test_title_is_escaped_and_the_page_reads_back(tmp_path: Path) -> None:
    path = write_text(tmp_path / "a.html", page("<b>&\ud800", ["<p>one</p>", "<p>two</p>"]))
    document = read_document(path)
    assert document.meta["title"] == "<b>&\ufffd"
    assert document.text == "# <b>&\ufffd\n\none\n\ntwo"
