"""Where the tokens of two marked spans are in a sequence; long texts are cut around the spans, never through them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tokenizers import Tokenizer

from cypher.errors import DataError
from cypher.tasks.text_sequence import TextReader, TextSequence


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
        DataError: A span has no token, or the spans do not fit into the longest sequence together.
    """
    sides = [_Side(text=text, spans=(first, second))]
    if pair is not None:
        sides = [_Side(text=text, spans=(first,)), _Side(text=pair, spans=(second,))]
    # Two special tokens around one text and three around two; a cut text can begin with a token more than it had.
    room = (reader.max_length - len(sides) - 1) // len(sides)
    lengths = [len(reader.tokenizer.encode(side.text, add_special_tokens=False).ids) for side in sides]
    if sum(lengths) > reader.max_length - len(sides) - 1:
        spare = max(0, room - min(lengths)) if pair is not None else 0
        sides = [
            side if length <= room else _cut(reader.tokenizer, side, room + spare, reader.max_length, place)
            for side, length in zip(sides, lengths, strict=True)
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
    """The stretch of at most ``room`` tokens with the spans in its middle."""
    offsets = tokenizer.encode(side.text, add_special_tokens=False).offsets
    tokens = [_tokens(offsets, span, place) for span in side.spans]
    first, last = min(start for start, _ in tokens), max(end for _, end in tokens)
    while room >= last - first:
        start = max(0, min(first - (room - (last - first)) // 2, len(offsets) - room))
        begin, end = offsets[start][0], offsets[min(start + room, len(offsets)) - 1][1]
        text = side.text[begin:end]
        # Cut inside a word, a text can have more tokens than the stretch it is.
        more = len(tokenizer.encode(text, add_special_tokens=False).ids) - room
        if more <= 0:
            return _Side(text=text, spans=tuple((start - begin, end - begin) for start, end in side.spans))
        room -= more
    raise DataError(
        f"{place}: the spans are {last - first} tokens from end to end",
        needed=f"spans that fit into task.max_length = {max_length} with what is read beside them",
        change="raise task.max_length",
    )
