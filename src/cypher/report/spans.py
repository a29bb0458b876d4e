"""Text with spans as HTML: every application shows what it found with this."""

from __future__ import annotations

from collections.abc import Sequence

from cypher.documents.document import Span
from cypher.report.markup import escaped
from cypher.report.palette import COLOURS


def render_spans(text: str, spans: Sequence[Span], *, context: int | None = None) -> str:
    """Text with every span marked, as one HTML fragment for `cypher.report.page`.

    Overlapping spans are cut at each other's borders; the tooltip of a stretch names all spans over it and
    its colour is that of the shortest. A point (``start == end``) is a thin mark between characters. The
    colour follows layer and label: the same pair has the same colour in one fragment.

    Args:
        text: The whole text that the spans' offsets count in.
        spans: In any order.
        context: Show only this many characters around each span, to the next space, with "…" for what is
            left out; ``None`` shows all. Without spans, twice as many characters from the start are shown.

    Returns:
        A ``<div class="text">`` with ``<mark>`` elements; everything in it is escaped.

    Example:
        >>> span = Span(start=0, end=5, layer="answer", score=0.93)
        >>> render_spans("Paris & Rome", [span])
        '<div class="text" dir="auto"><mark class="c0" title="answer 0.93">Paris</mark> &amp; Rome</div>'
    """
    assert all(span.end <= len(text) for span in spans), "a span ends after the text"
    assert context is None or context >= 0, f"context = {context} characters"
    kinds = {kind: number for number, kind in enumerate(dict.fromkeys((s.layer, s.label) for s in spans))}
    parts: list[str] = []
    windows = _windows(text, spans, context)
    for start, end in windows:
        if start > 0:
            parts.append('<span class="cut"> … </span>' if parts else '<span class="cut">… </span>')
        parts.append(_marked(text, start, end, spans, kinds))
    if windows and windows[-1][1] < len(text):
        parts.append('<span class="cut"> …</span>')
    return f'<div class="text" dir="auto">{"".join(parts)}</div>'


def _windows(text: str, spans: Sequence[Span], context: int | None) -> list[tuple[int, int]]:
    """Stretches of text to show, in order and apart."""
    if context is None:
        return [(0, len(text))]
    if not spans:
        return [(0, _outward(text, 2 * context, 1))]
    windows: list[tuple[int, int]] = []
    for span in sorted(spans, key=lambda span: span.start):
        start = _outward(text, span.start - context, -1)
        end = _outward(text, span.end + context, 1)
        if windows and start <= windows[-1][1]:
            windows[-1] = (windows[-1][0], max(end, windows[-1][1]))
        else:
            windows.append((start, end))
    return windows


def _outward(text: str, offset: int, step: int) -> int:
    """The nearest border of a word at or beyond ``offset``; a word of over 30 characters is cut."""
    offset = min(max(offset, 0), len(text))
    for moved in range(30):
        place = offset + step * moved
        if place <= 0 or place >= len(text) or text[place - 1].isspace() != text[place].isspace():
            return min(max(place, 0), len(text))
    return offset


def _marked(text: str, start: int, end: int, spans: Sequence[Span], kinds: dict[tuple[str, str], int]) -> str:
    """One window of text, cut wherever a span starts or ends."""
    inside = sorted((s for s in spans if start <= s.start and s.end <= end), key=lambda s: s.start)
    borders = sorted({start, end, *(s.start for s in inside), *(s.end for s in inside)})
    parts: list[str] = []
    open_spans: list[Span] = []
    upcoming = 0
    for place, border in enumerate(borders):
        open_spans = [span for span in open_spans if span.end > border]
        points: list[Span] = []
        while upcoming < len(inside) and inside[upcoming].start == border:
            span = inside[upcoming]
            (points if span.end == span.start else open_spans).append(span)
            upcoming += 1
        if points:
            parts.append(_mark("", points, kinds))
        if place + 1 < len(borders):
            stretch = text[border : borders[place + 1]]
            parts.append(_mark(stretch, open_spans, kinds) if open_spans else escaped(stretch))
    return "".join(parts)


def _mark(stretch: str, spans: Sequence[Span], kinds: dict[tuple[str, str], int]) -> str:
    nearest = min(spans, key=lambda span: span.end - span.start)
    colour = f"c{kinds[nearest.layer, nearest.label] % len(COLOURS)}"
    classes = f"{colour} point" if not stretch else f"{colour} shared" if len(spans) > 1 else colour
    tooltip = escaped("; ".join(_named(span) for span in spans))
    return f'<mark class="{classes}" title="{tooltip}">{escaped(stretch)}</mark>'


def _named(span: Span) -> str:
    name = f"{span.layer}: {span.label}" if span.label else span.layer
    return name if span.score is None else f"{name} {span.score:.2f}"
