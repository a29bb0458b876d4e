"""WebVTT transcripts: what is said as one text, with the time of every stretch of it."""

from __future__ import annotations

import html
import os
import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence

from cypher.documents.document import Document, MetaValue, Span
from cypher.documents.source import read_bytes, shown
from cypher.documents.text import decode_text
from cypher.errors import DataError

_TIME = r"(?:(\d{1,6}):)?(\d{2}):(\d{2})[.,](\d{3})"
_TIMING = re.compile(rf"^\s*{_TIME}\s+-->\s+{_TIME}")
# No part can take what the next one begins with, so that an unclosed tag is passed over once.
_SPEAKER = re.compile(r"<v(?:\.[^\s<>]*)?\s+([^\s<>][^<>]*)>")
_TAG = re.compile(r"</?[^<>]{0,200}>")
_INLINE_TIME = re.compile(rf"<{_TIME}>")
_BLANK_LINES = re.compile(r"\n\s*\n")


def read_vtt(content: bytes, path: str) -> Document:
    r"""Cue texts of a WebVTT file joined by newlines, without times, tags and speaker marks.

    A change of the named speaker starts a new paragraph. Rolling captions, which repeat the line before
    (made by speech recognition, known by times inside the cues), are said once. The times are in
    `read_cues`.

    Args:
        content: Bytes of the file.
        path: Where it came from.

    Raises:
        DataError: Not WebVTT, or no cue with words.

    Example:
        >>> read_vtt(b"WEBVTT\n\n00:01.000 --> 00:02.000\n<v Ann>Hi &amp; bye", "a.vtt").text
        'Hi & bye'
    """
    return _parse(content, path)[0]


def read_cues(path: str | os.PathLike[str]) -> tuple[Span, ...]:
    """Cues of a WebVTT file as spans over the text that `read_document` gives for it.

    Args:
        path: The ``.vtt`` file.

    Returns:
        Spans of layer ``"cue"`` in order; ``attributes`` hold ``start_seconds``, ``end_seconds`` and,
        where the file names one, ``speaker``.

    Raises:
        DataError: As for reading the document.
    """
    return _parse(read_bytes(path), shown(path))[1]


def cue_at(cues: Sequence[Span], offset: int) -> Span | None:
    """The cue in which the character at ``offset`` is said; before the first one, ``None``.

    Args:
        cues: In order, from `read_cues`.
        offset: Character of the document.

    Example:
        >>> cue = Span(start=0, end=9, layer="cue", attributes={"start_seconds": 12.5})
        >>> cue_at([cue], 4).attributes["start_seconds"]
        12.5
    """
    index = bisect_right(cues, offset, key=lambda cue: cue.start)
    return cues[index - 1] if index else None


def _parse(content: bytes, path: str) -> tuple[Document, tuple[Span, ...]]:
    source, encoding = decode_text(content, path)
    source = source.replace("\r\n", "\n").replace("\r", "\n")
    head = source.split("\n", 1)[0]
    if not re.match(r"WEBVTT(?:[ \t]|$)", head):
        raise DataError(f"{path} is not a WebVTT file", needed='a first line "WEBVTT"')
    rolling = _INLINE_TIME.search(source) is not None
    parts: list[str] = []
    cues: list[Span] = []
    length, last_line, last_speaker = 0, "", ""
    for start, end, payload in _cue_blocks(source):
        speaker_tag = _SPEAKER.search(payload)
        speaker = " ".join(html.unescape(speaker_tag[1]).split()) if speaker_tag else ""
        lines = [" ".join(html.unescape(_TAG.sub("", line)).split()) for line in payload.split("\n")]
        lines = [line for line in lines if line]
        if rolling and lines and lines[0] == last_line:
            lines = lines[1:]
        if not lines:
            continue
        said = "\n".join(lines)
        border = "" if not parts else "\n\n" if speaker != last_speaker else "\n"
        attributes: dict[str, MetaValue] = {"start_seconds": start, "end_seconds": end}
        if speaker:
            attributes["speaker"] = speaker
        first = length + len(border)
        length = first + len(said)
        cues.append(Span(start=first, end=length, layer="cue", attributes=attributes))
        parts += [border, said]
        last_line, last_speaker = lines[-1], speaker
    if not parts:
        raise DataError(f"{path} has no cues with words", needed="at least one timed line of text")
    meta: dict[str, MetaValue] = {"path": path, "format": "vtt", "encoding": encoding}
    title = head[len("WEBVTT") :].strip().lstrip("-–— ")
    if title:
        meta["title"] = title
    return Document(text="".join(parts), meta=meta), tuple(cues)


def _cue_blocks(source: str) -> Iterator[tuple[float, float, str]]:
    """Start and end in seconds, and payload, of each block with a timing line; notes and styles have none."""
    for block in _BLANK_LINES.split(source):
        lines = block.strip("\n").split("\n")
        for index, line in enumerate(lines[:2]):  # an identifier may stand above the timing
            timing = _TIMING.match(line)
            if timing:
                yield (
                    _seconds(timing.groups()[:4]),
                    _seconds(timing.groups()[4:]),
                    "\n".join(lines[index + 1 :]),
                )
                break


def _seconds(clock: Sequence[str | None]) -> float:
    hours, minutes, seconds, thousandths = (int(part or 0) for part in clock)
    return hours * 3600 + minutes * 60 + seconds + thousandths / 1000
