"""Where the tokens of two marked spans are in a sequence; long texts are cut around the spans, never through them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tokenizers import Tokenizer

from cypher.errors import DataError
from cypher.tasks.text_sequence import TextReader, TextSequence, kept_of_pair


@dataclass(frozen=True, kw_only=True)
class SpanPlaces:
    """A sequence with two spans.

    Args:
        sequence: As the reader makes it.
        first: First token of the first span and the one after its last, in the sequence.
        second: Likewise of the second.
    """

    sequence: TextSequence
    first: tuple[int, int]
    second: tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class _Side:
    """A text, cut or whole, with the characters of the spans that stand in it."""

    text: str
    spans: tuple[tuple[int, int], ...]


def find_spans(
    reader: TextReader,
    text: str,
    pair: str | None,
    first: tuple[int, int],
    second: tuple[int, int],
    *,
    row: int,
    place: str,
) -> SpanPlaces:
    """Tokens of two spans that are given in characters.

    Args:
        reader: Texts to sequences; its longest sequence is never exceeded.
        text: With the first span.
        pair: With the second span; ``None``: it stands in ``text`` too.
        first: ``(start, end)`` characters of ``text``.
        second: Likewise, of ``pair`` where there is one.
        row: Place of the row in the list of rows.
        place: Of the row, for errors.

    Raises:
        DataError: A span has no token, or is longer than the room there is for it.
    """
    sides = [_Side(text=text, spans=(first, second))]
    if pair is not None:
        sides = [_Side(text=text, spans=(first,)), _Side(text=pair, spans=(second,))]
    lengths = [_count(reader.tokenizer, side.text) for side in sides]
    # Two special tokens around one text, three around two.
    room = reader.max_length - len(sides) - 1
    rooms = (room,) if pair is None else kept_of_pair(lengths[0], lengths[1], room)
    sides = [
        side if length <= room else _cut(reader.tokenizer, side, room, reader.max_length, place)
        for side, length, room in zip(sides, lengths, rooms, strict=True)
    ]
    sequence = reader.read(sides[0].text, sides[1].text if pair is not None else None, row=row)
    found: list[tuple[int, int]] = []
    for number, side in enumerate(sides):
        encoding = reader.tokenizer.encode(side.text, add_special_tokens=False)
        begin = sequence.second_start if number else _place_of(encoding.ids, sequence.token_ids)
        for span in side.spans:
            start, end = _tokens(encoding.offsets, span, place)
            found.append((begin + start, begin + end))
    assert max(end for _, end in found) < len(sequence.token_ids), "texts were cut to fit with their spans"
    return SpanPlaces(sequence=sequence, first=found[0], second=found[1])


def _place_of(ids: Sequence[int], sequence: Sequence[int]) -> int:
    """Where the first text begins: behind whatever the reader opens a sequence with."""
    return next(start for start in range(len(sequence)) if tuple(sequence[start : start + len(ids)]) == tuple(ids))


def _tokens(offsets: Sequence[tuple[int, int]], span: tuple[int, int], place: str) -> tuple[int, int]:
    """First token that overlaps the characters of ``span``, and one past the last."""
    inside = [number for number, (start, end) in enumerate(offsets) if start < span[1] and end > span[0]]
    if not inside:
        raise DataError(f"{place}: characters {span[0]} to {span[1]} hold no token", needed="a word")
    return inside[0], inside[-1] + 1


def _cut(tokenizer: Tokenizer, side: _Side, room: int, max_length: int, place: str) -> _Side:
    """At most ``room`` tokens with the spans: one stretch with both in its middle, or one around each."""
    whole = _window(tokenizer, side, room, place)
    if whole is not None:
        return whole
    for half in range(room // 2, 0, -1) if len(side.spans) == 2 else ():
        parts = [_window(tokenizer, _Side(text=side.text, spans=(span,)), half, place) for span in side.spans]
        if parts[0] is None or parts[1] is None:
            break
        joined = _joined(parts[0], parts[1], in_order=side.spans[0] <= side.spans[1])
        if _count(tokenizer, joined.text) <= room:
            return joined
    raise DataError(
        f"{place}: a span is longer than the {room if len(side.spans) == 1 else room // 2} tokens there are for it",
        needed=f"spans that fit into task.max_length = {max_length} with what is read beside them",
        change="raise task.max_length",
    )


def _window(tokenizer: Tokenizer, side: _Side, room: int, place: str) -> _Side | None:
    """The stretch of at most ``room`` tokens with the spans in its middle; ``None`` where they are too far apart."""
    offsets = tokenizer.encode(side.text, add_special_tokens=False).offsets
    tokens = [_tokens(offsets, span, place) for span in side.spans]
    first, last = min(start for start, _ in tokens), max(end for _, end in tokens)
    while room >= last - first:
        start = max(0, min(first - (room - (last - first)) // 2, len(offsets) - room))
        begin, end = offsets[start][0], offsets[min(start + room, len(offsets)) - 1][1]
        text = side.text[begin:end]
        # Cut inside a word, a text can have more tokens than the stretch it is.
        more = _count(tokenizer, text) - room
        if more <= 0:
            return _Side(text=text, spans=tuple((start - begin, end - begin) for start, end in side.spans))
        room -= more
    return None


def _joined(first: _Side, second: _Side, *, in_order: bool) -> _Side:
    """Two stretches with a span each as one text; what stood between them is gone."""
    before, after = (first, second) if in_order else (second, first)
    shift = len(before.text) + 1
    moved = tuple((start + shift, end + shift) for start, end in after.spans)
    spans = (*first.spans, *moved) if in_order else (*moved, *second.spans)
    return _Side(text=f"{before.text} {after.text}", spans=spans)


def _count(tokenizer: Tokenizer, text: str) -> int:
    return len(tokenizer.encode(text, add_special_tokens=False).ids)
