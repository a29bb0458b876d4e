"""Spans as HTML, read back with a real parser."""

from __future__ import annotations

import random

import pytest
from selectolax.lexbor import LexborHTMLParser

from cypher.documents import Span
from cypher.report import escaped, render_spans


def span(start: int, end: int, layer: str = "answer", label: str = "", score: float | None = None) -> Span:
    return Span(start=start, end=end, layer=layer, label=label, score=score)


def marks(html: str) -> list[tuple[str, str, str]]:
    """Text, tooltip and classes of each mark."""
    nodes = LexborHTMLParser(html).css("mark")
    return [(node.text(), node.attributes["title"] or "", node.attributes["class"] or "") for node in nodes]


def shown(html: str) -> str:
    return LexborHTMLParser(html).css_first("div.text").text()


@pytest.mark.parametrize(
    ("spans", "expected"),
    [
        ([], []),
        ([span(0, 3, score=0.934)], [("abc", "answer 0.93", "c0")]),
        ([span(0, 2), span(4, 6)], [("ab", "answer", "c0"), ("ef", "answer", "c0")]),
        ([span(0, 2, "ner", "PER"), span(2, 4, "ner", "LOC")], [("ab", "ner: PER", "c0"), ("cd", "ner: LOC", "c1")]),
        (
            [span(0, 4, "a"), span(2, 6, "b")],
            [("ab", "a", "c0"), ("cd", "a; b", "c0 shared"), ("ef", "b", "c1")],
        ),
        (
            [span(0, 6, "a"), span(2, 4, "b")],
            [("ab", "a", "c0"), ("cd", "a; b", "c1 shared"), ("ef", "a", "c0")],
        ),
        ([span(1, 3), span(1, 3)], [("bc", "answer; answer", "c0 shared")]),
        ([span(2, 2, "gap")], [("", "gap", "c0 point")]),
        ([span(8, 8, "end")], [("", "end", "c0 point")]),
        ([span(0, 8)], [("abcdefgh", "answer", "c0")]),
    ],
)
def test_marks(spans: list[Span], expected: list[tuple[str, str, str]]) -> None:
    html = render_spans("abcdefgh", spans)
    assert marks(html) == expected
    assert shown(html) == "abcdefgh"


def test_text_labels_and_tooltips_are_escaped() -> None:
    evil = "<script>alert(\"1\")</script> & 'x'"
    html = render_spans(evil, [span(0, 8, evil, evil)])
    tree = LexborHTMLParser(html)
    assert tree.css_first("script") is None
    assert shown(html) == evil
    assert marks(html) == [("<script>", f"{evil}: {evil}", "c0")]


def test_what_html_cannot_hold_is_replaced() -> None:
    assert escaped("a\x00b\ud800c\x1bd\fe\tf\n") == "a\ufffdb\ufffdc\ufffdd\ne\tf\n"
    escaped("".join(map(chr, range(0x10000)))).encode()


def test_context_windows() -> None:
    text = " ".join(f"word{n:02}" for n in range(50))
    html = render_spans(text, [span(70, 76), span(84, 90), span(280, 286)], context=10)
    assert shown(html) == "… word08 word09 word10 word11 word12 word13 word14 … word38 word39 word40 word41 word42 …"
    assert [text for text, _, _ in marks(html)] == ["word10", "word12", "word40"]
    assert shown(render_spans(text, [span(0, 6)], context=0)) == "word00 …"
    assert shown(render_spans(text, [span(343, 349)], context=4)) == "… word48 word49"
    assert shown(render_spans(text, [], context=10)) == "word00 word01 word02 …"
    assert shown(render_spans("x" * 500, [span(250, 251)], context=20)) == f"… {'x' * 41} …"


def test_random_spans_keep_the_text_and_cover_what_they_cover() -> None:
    generator = random.Random(5)
    text = "The <quick> & brown fox\njumps  over."
    for _ in range(300):
        spans = []
        for number in range(generator.randint(0, 8)):
            start = generator.randint(0, len(text))
            spans.append(span(start, generator.randint(start, len(text)), f"l{number % 3}"))
        html = render_spans(text, spans)
        assert shown(html) == text
        covered = {offset for one in spans for offset in range(one.start, one.end)}
        assert sum(len(mark[0]) for mark in marks(html)) == len(covered)
        assert sum("point" in mark[2] for mark in marks(html)) == len({s.start for s in spans if s.start == s.end})
