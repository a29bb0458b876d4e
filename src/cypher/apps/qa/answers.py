"""What a question comes back with: frozen, typed, and one JSON object."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from cypher.documents import MetaValue

CONTEXT_CHARACTERS = 100


@dataclass(frozen=True, kw_only=True)
class Answer:
    """One answer with where it stands, or "no answer": then only ``score`` is set.

    Args:
        answer: The characters of the document from ``offset_start`` to ``offset_end``.
        score: Chance that it is right, in [0, 1]; for "no answer" that all other answers are wrong.
        context: The answer with some 100 characters around it, cut between words.
        document: Path of the document, as it was given when it was indexed.
        document_id: ``Document.id``.
        meta: What the document says of itself.
        offset_start: First character in the document's extracted text.
        offset_end: One past its last.
        page: From 1; ``None`` where the document has no pages.
        context_start: Where ``context`` begins in the document's text; not part of the JSON.
    """

    answer: str | None
    score: float
    context: str | None = None
    document: str | None = None
    document_id: str | None = None
    meta: Mapping[str, MetaValue] | None = None
    offset_start: int | None = None
    offset_end: int | None = None
    page: int | None = None
    context_start: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """The JSON object of an answer."""
        values = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "context_start"}
        return values | {"meta": None if self.meta is None else dict(self.meta)}


@dataclass(frozen=True, kw_only=True)
class Timings:
    """Seconds one question took; loading weights, which happens once, is not in them."""

    retrieve_s: float
    read_s: float
    total_s: float

    def to_dict(self) -> dict[str, float]:
        """The JSON object, in seconds to the tenth of a millisecond."""
        return {field.name: round(getattr(self, field.name), 4) for field in fields(self)}


@dataclass(frozen=True, kw_only=True)
class AskResult:
    """Answers to one question.

    Args:
        query: The question as it was given.
        answers: The first one is the decision; all are by falling score, but that "no answer" stands first exactly
            when it is the decision, whatever its score.
        no_answer_score: Chance that none of the answers is right.
        timings: Seconds by stage.
        notes: What the person should know, one line each; not part of the JSON.
    """

    query: str
    answers: tuple[Answer, ...]
    no_answer_score: float
    timings: Timings
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """The JSON object of a result."""
        return {
            "query": self.query,
            "answers": [answer.to_dict() for answer in self.answers],
            "no_answer_score": self.no_answer_score,
            "timings": self.timings.to_dict(),
        }


def context_around(text: str, start: int, end: int, *, characters: int = CONTEXT_CHARACTERS) -> tuple[int, int]:
    """The stretch of text around a span that is shown with it.

    Args:
        text: Of the passage.
        start: First character of the span.
        end: One past its last.
        characters: Most characters on either side; a word that does not fit whole is left out.

    Example:
        >>> text = "The old tower was finished in 1889 by hand."
        >>> start, end = context_around(text, 30, 34, characters=10)
        >>> text[start:end]
        'in 1889 by hand.'
    """
    left, right = max(0, start - characters), min(len(text), end + characters)
    if left > 0 and not text[left - 1].isspace():
        left = next((place for place in range(left, start) if text[place].isspace()), start)
    if right < len(text) and not text[right].isspace():
        right = next((place for place in range(right, end, -1) if text[place - 1].isspace()), end)
    while left < start and text[left].isspace():
        left += 1
    while right > end and text[right - 1].isspace():
        right -= 1
    return left, right
