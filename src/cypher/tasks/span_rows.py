"""Rows for :class:`ExtractSpan` from SQuAD-format paragraphs, and their division into parts."""

from __future__ import annotations

from collections.abc import Sequence

from cypher.data.readers import SquadParagraph
from cypher.data.splits import assign
from cypher.tasks.extract_span import SpanRow


def span_rows(paragraphs: Sequence[SquadParagraph]) -> list[SpanRow]:
    """One row a question, with every annotator's answer; a question marked impossible has none."""
    return [
        SpanRow(
            id=question.id,
            question=question.question,
            passage=paragraph.context,
            answers=tuple((answer.start, answer.start + len(answer.text)) for answer in question.answers),
        )
        for paragraph in paragraphs
        for question in paragraph.questions
    ]


def held_out(
    paragraphs: Sequence[SquadParagraph], *, fraction: float
) -> tuple[list[SquadParagraph], list[SquadParagraph]]:
    """Paragraphs to train on and paragraphs to choose by, divided by a hash of their text.

    Args:
        paragraphs: Of one data set.
        fraction: Share that is held out, between 0 and 1.
    """
    parts: dict[str, list[SquadParagraph]] = {"train": [], "development": []}
    fractions = {"train": 1 - fraction, "development": fraction}
    for paragraph in paragraphs:
        parts[assign(paragraph.context, fractions=fractions)].append(paragraph)
    return parts["train"], parts["development"]
