"""Rows for :class:`ExtractSpan` from SQuAD-format paragraphs, with pairs that have no answer."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Sequence

from cypher.data.readers import SquadParagraph
from cypher.data.splits import assign
from cypher.tasks.answer_metrics import normalise_answer
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


def unanswerable_rows(paragraphs: Sequence[SquadParagraph], *, per_question: float, seed: int) -> list[SpanRow]:
    """Questions put to another paragraph of the same article, where none of their answers occurs.

    The same article makes it hard: the paragraph is about the right thing and still has no answer. Articles of one
    paragraph, and questions whose answer occurs everywhere, give no row.

    Args:
        paragraphs: Of any number of articles.
        per_question: Rows per answerable question; 0.3 draws three questions in ten.
        seed: Of the draw.
    """
    random_source = random.Random(seed)  # noqa: S311 - a draw of rows, not a secret
    articles: dict[str, list[SquadParagraph]] = defaultdict(list)
    for paragraph in paragraphs:
        articles[paragraph.title].append(paragraph)
    rows = []
    for paragraph in paragraphs:
        others = [other for other in articles[paragraph.title] if other is not paragraph]
        for question in paragraph.questions:
            copies = int(per_question) + (random_source.random() < per_question % 1)
            golds = {normalise_answer(answer.text) for answer in question.answers} - {""}
            for other in random_source.sample(others, min(copies, len(others))):
                text = f" {normalise_answer(other.context)} "
                if golds and not any(f" {gold} " in text for gold in golds):
                    rows.append(
                        SpanRow(id=f"{question.id}-elsewhere", question=question.question, passage=other.context)
                    )
    return rows


def held_out(
    paragraphs: Sequence[SquadParagraph], *, fraction: float
) -> tuple[list[SquadParagraph], list[SquadParagraph]]:
    """Paragraphs to train on and paragraphs to choose by, divided by a hash of their text."""
    parts: dict[str, list[SquadParagraph]] = {"train": [], "development": []}
    fractions = {"train": 1 - fraction, "development": fraction}
    for paragraph in paragraphs:
        parts[assign(paragraph.context, fractions=fractions)].append(paragraph)
    return parts["train"], parts["development"]
