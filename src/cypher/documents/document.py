"""Document and Span: what every application takes and returns.

Offsets are characters (Python string indices) of ``Document.text``, never bytes and never tokens.
"""

from __future__ import annotations

import hashlib
import json
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TypeAlias

MetaValue: TypeAlias = str | int | float | bool | None


@dataclass(frozen=True, kw_only=True)
class Span:
    """A labelled stretch of a document.

    Args:
        start: First character, counted from 0.
        end: One past the last character; ``end == start`` marks a point.
        layer: Which annotation it belongs to, such as ``"answer"`` or ``"dialogue_act"``.
        label: The class inside the layer; empty when the layer has one class.
        score: Confidence in [0, 1] where the maker has one, else ``None``.
        attributes: Whatever else the maker wants to keep; JSON values only.

    Example:
        >>> span = Span(start=0, end=5, layer="answer", score=0.9)
        >>> "Paris is in France."[span.start : span.end]
        'Paris'
    """

    start: int
    end: int
    layer: str
    label: str = ""
    score: float | None = None
    attributes: Mapping[str, MetaValue] = field(default_factory=dict)

    def __post_init__(self) -> None:
        assert 0 <= self.start <= self.end, f"span [{self.start}, {self.end}) is not a stretch of text"


@dataclass(frozen=True, kw_only=True)
class Document:
    """One text with where it came from.

    Args:
        text: The extracted text; for plain text files the file itself.
        meta: Facts about it to filter by: ``path`` (as given), ``format``, title, and a person's own.
        pages: First character of each page, ascending, ``pages[0] == 0``; empty when there are no pages.

    Example:
        >>> document = Document(text="one two", meta={"path": "a.txt"}, pages=(0, 4))
        >>> document.page_at(5), len(document.id)
        (2, 32)
    """

    text: str
    meta: Mapping[str, MetaValue] = field(default_factory=dict)
    pages: tuple[int, ...] = ()

    @cached_property
    def id(self) -> str:
        """Hash of text and meta (32 hexadecimal digits): the same content is the same document."""
        content = json.dumps([self.text, dict(sorted(self.meta.items()))], ensure_ascii=False)
        return hashlib.sha256(content.encode("utf-8", "surrogatepass")).hexdigest()[:32]

    def page_at(self, offset: int) -> int | None:
        """Page number, counted from 1, of the character at ``offset``; ``None`` without pages."""
        return bisect_right(self.pages, offset) if self.pages else None
