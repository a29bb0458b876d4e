"""WebVTT transcripts: what is said, as one text."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator

from cypher.documents.document import Document, MetaValue
from cypher.documents.text import decode_text
from cypher.errors import DataError

_TIME = r"(?:\d{1,6}:)?\d{2}:\d{2}[.,]\d{3}"
_TIMING = re.compile(rf"^\s*{_TIME}\s+-->\s+{_TIME}")
# No part can take what the next one begins with, so that an unclosed tag is passed over once.
_SPEAKER = re.compile(r"<v(?:\.[^\s<>]*)?\s+([^\s<>][^<>]*)>")
_TAG = re.compile(r"</?[^<>]{0,200}>")
_INLINE_TIME = re.compile(rf"<{_TIME}>")
_BLANK_LINES = re.compile(r"\n\s*\n")


def read_vtt(content: bytes, path: str) -> Document:
    r"""Cue texts of a WebVTT file joined by newlines, without times, tags and speaker marks.

    A change of the named speaker starts a new paragraph. Rolling captions, which repeat the line before
    (made by speech recognition, known by times inside the cues), are said once.

    Args:
        content: Bytes of the file.
        path: Where it came from.

    Raises:
        DataError: Not WebVTT, or no cue with words.

    Example:
        >>> read_vtt(b"WEBVTT\n\n00:01.000 --> 00:02.000\n<v Ann>Hi &amp; bye", "a.vtt").text
        'Hi & bye'
    """
    source, encoding = decode_text(content, path)
    source = source.replace("\r\n", "\n").replace("\r", "\n")
    head = source.split("\n", 1)[0]
    if not re.match(r"WEBVTT(?:[ \t]|$)", head):
        raise DataError(f"{path} is not a WebVTT file", needed='a first line "WEBVTT"')
    rolling = _INLINE_TIME.search(source) is not None
    parts: list[str] = []
    last_line, last_speaker = "", ""
    for payload in _payloads(source):
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
        parts += [border, said]
        last_line, last_speaker = lines[-1], speaker
    if not parts:
        raise DataError(f"{path} has no cues with words", needed="at least one timed line of text")
    meta: dict[str, MetaValue] = {"path": path, "format": "vtt", "encoding": encoding}
    title = head[len("WEBVTT") :].strip().lstrip("-–— ")
    if title:
        meta["title"] = title
    return Document(text="".join(parts), meta=meta)


def _payloads(source: str) -> Iterator[str]:
    """What stands below the timing line of each block that has one; notes and styles have none."""
    for block in _BLANK_LINES.split(source):
        lines = block.strip("\n").split("\n")
        for index, line in enumerate(lines[:2]):  # an identifier may stand above the timing
            if _TIMING.match(line):
                yield "\n".join(lines[index + 1 :])
                break
