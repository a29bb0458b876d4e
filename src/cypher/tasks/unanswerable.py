"""Pairs of question and passage without an answer, made from pairs that have one.

A reader only learns to say "no answer" from passages that look as if they had one. Three makers, in equal parts:

- *elsewhere*: the question with another paragraph of its article, of up to 64 drawn the one that shares most words;
- *without*: the question with its own paragraph, the sentences that hold an answer cut out;
- *altered*: a name or a number of the question replaced by another one of the same paragraph, as the crowd workers
  of SQuAD 2.0 did by hand (Rajpurkar et al. 2018, arXiv 1806.03822, section 3).
"""

from __future__ import annotations

import random
import re
from collections import defaultdict
from collections.abc import Callable, Sequence

from cypher.data.readers import SquadParagraph, SquadQuestion
from cypher.documents import split_sentences
from cypher.tasks.answer_metrics import normalise_answer
from cypher.tasks.extract_span import SpanRow

# An article of thousands of paragraphs (a forum) is looked through by a draw of so many.
_OTHERS = 64
_WORD = re.compile(r"\w+")
# A number, or capitalised words in a row that do not open the sentence.
_NUMBER = re.compile(r"\b\d[\d,.]*\d\b|\b\d\b")
_NAME = re.compile(r"(?<=[\w,;] )[A-Z][\w'’.-]*\w(?: [A-Z][\w'’.-]*\w)*")


def unanswerable_rows(paragraphs: Sequence[SquadParagraph], *, per_question: float, seed: int) -> list[SpanRow]:
    """Make unanswerable pairs; a question that no maker can change gives none.

    Args:
        paragraphs: Of any number of articles.
        per_question: Pairs per answerable question; 0.3 draws three questions in ten, 2 makes two of each.
        seed: Of the draw.

    Returns:
        Rows without answers; their ids are the question's with the maker's name behind.
    """
    random_source = random.Random(seed)  # noqa: S311 - a draw of rows, not a secret
    articles: dict[str, list[SquadParagraph]] = defaultdict(list)
    for paragraph in paragraphs:
        articles[paragraph.title].append(paragraph)
    makers: dict[str, Callable[[SquadQuestion, SquadParagraph], tuple[str, str] | None]] = {
        "elsewhere": lambda question, paragraph: _elsewhere(
            question, paragraph, articles[paragraph.title], random_source
        ),
        "without": _without,
        "altered": lambda question, paragraph: _altered(question, paragraph, random_source),
    }
    rows = []
    for paragraph in paragraphs:
        for question in paragraph.questions:
            wanted = int(per_question) + (random_source.random() < per_question % 1)
            if not question.answers:
                continue
            for name in random_source.sample(list(makers), len(makers)):
                if wanted and (made := makers[name](question, paragraph)):
                    wanted -= 1
                    rows.append(SpanRow(id=f"{question.id}-{name}", question=made[0], passage=made[1]))
    return rows


def _elsewhere(
    question: SquadQuestion, paragraph: SquadParagraph, article: Sequence[SquadParagraph], random_source: random.Random
) -> tuple[str, str] | None:
    asked = set(_WORD.findall(question.question.lower()))
    drawn = random_source.sample(article, min(_OTHERS, len(article)))
    drawn.sort(key=lambda other: -len(asked.intersection(_WORD.findall(other.context.lower()))))
    for other in drawn:
        if other is not paragraph and not _holds_answer(other.context, question):
            return question.question, other.context
    return None


def _without(question: SquadQuestion, paragraph: SquadParagraph) -> tuple[str, str] | None:
    text = paragraph.context
    sentences = [text[start:end] for start, end in split_sentences(text)]
    kept = [sentence for sentence in sentences if not _holds_answer(sentence, question)]
    rest = " ".join(kept)
    # An answer can cross a border between sentences, and a rest of a few words is no passage.
    if len(kept) < max(1, len(sentences) // 2) or _holds_answer(rest, question):
        return None
    return question.question, rest


def _altered(
    question: SquadQuestion, paragraph: SquadParagraph, random_source: random.Random
) -> tuple[str, str] | None:
    for pattern in random_source.sample([_NUMBER, _NAME], 2):
        there = pattern.findall(question.question)
        answers = {normalise_answer(answer.text) for answer in question.answers}
        others = sorted(
            {
                found
                for found in pattern.findall(paragraph.context)
                if found.lower() not in question.question.lower() and normalise_answer(found) not in answers
            }
        )
        if there and others:
            old, new = random_source.choice(there), random_source.choice(others)
            return question.question.replace(old, new), paragraph.context
    return None


def _holds_answer(text: str, question: SquadQuestion) -> bool:
    normalised = f" {normalise_answer(text)} "
    golds = (normalise_answer(answer.text) for answer in question.answers)
    return any(not gold or f" {gold} " in normalised for gold in golds)
