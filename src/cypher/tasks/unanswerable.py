"""Pairs of question and passage without an answer, made from pairs that have one.

A reader only learns to say "no answer" from passages that look as if they had one. Two makers change the passage, and
those of `cypher.tasks.altered_question` change the question:

- *elsewhere*: the question with another paragraph of its article, of up to 64 drawn the one that shares most words;
- *without*: the question with its own paragraph, the sentences that hold an answer cut out.
"""

from __future__ import annotations

import random
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence

from cypher.data.readers import SquadParagraph, SquadQuestion
from cypher.documents import split_sentences
from cypher.tasks.altered_question import ALTERATIONS, Asked
from cypher.tasks.answer_metrics import normalise_answer
from cypher.tasks.extract_span import SpanRow
from cypher.tasks.similar_words import SimilarWords

# An article of thousands of paragraphs (a forum) is looked through by a draw of so many.
_OTHERS = 64
_WORD = re.compile(r"\w+")
# How often each maker is tried first. A reader finds a foreign passage easily and a changed word hardly, and people
# who ask what a passage cannot answer mostly do the second (Rajpurkar et al. 2018, table 2).
WEIGHTS: Mapping[str, float] = {
    "elsewhere": 2,
    "without": 2,
    "similar": 5,
    "name": 3,
    "number": 2,
    "opposite": 3,
    "negated": 1,
    "word": 3,
    "spliced": 2,
    "transplanted": 1,
}
# What people write to mislead keeps the passage: a threshold that is chosen on foreign passages answers too readily.
MISLEADING: Mapping[str, float] = {maker: weight for maker, weight in WEIGHTS.items() if maker in ALTERATIONS}


def unanswerable_rows(
    paragraphs: Sequence[SquadParagraph],
    *,
    per_question: float,
    seed: int,
    similar_words: SimilarWords,
    weights: Mapping[str, float] = WEIGHTS,
) -> list[SpanRow]:
    """Make unanswerable pairs; a question that no maker can change gives none.

    Args:
        paragraphs: Of any number of articles.
        per_question: Pairs per answerable question; 0.3 draws three questions in ten, 2 makes two of each.
        seed: Of the draw.
        similar_words: Where similar words come from.
        weights: How often each maker is tried first; one that is not named is never tried.

    Returns:
        Rows without answers; their ids are the question's with the maker's name behind.

    Example:
        >>> import torch
        >>> from tokenizers import Tokenizer, models
        >>> from cypher.data.readers import SquadAnswer
        >>> answer = SquadAnswer(text="May", start=18)
        >>> asked = SquadQuestion(id="1", question="When is the first fair?", answers=(answer,), is_impossible=False)
        >>> fair = SquadParagraph(title="Kiel", context="The first fair is May.", questions=(asked,))
        >>> words = SimilarWords(torch.zeros(1, 2), Tokenizer(models.WordLevel({"?": 0})))  # knows no word
        >>> rows = unanswerable_rows([fair], per_question=9, seed=0, similar_words=words)
        >>> sorted(row.question for row in rows)
        ['When is the last fair?', "When isn't the first fair?"]
    """
    random_source = random.Random(seed)  # noqa: S311 - a draw of rows, not a secret
    articles: dict[str, list[SquadParagraph]] = defaultdict(list)
    for paragraph in paragraphs:
        articles[paragraph.title].append(paragraph)
    rows = []
    for paragraph in paragraphs:
        article = articles[paragraph.title]
        drawn = [other for other in random_source.sample(article, min(_OTHERS, len(article))) if other is not paragraph]
        for question in paragraph.questions:
            wanted = int(per_question) + (random_source.random() < per_question % 1)
            if not question.answers:
                continue
            for maker in _order(weights, random_source):
                if wanted and (made := _make(maker, question, paragraph, drawn, similar_words, random_source)):
                    wanted -= 1
                    rows.append(SpanRow(id=f"{question.id}-{maker}", question=made[0], passage=made[1]))
    return rows


def _order(weights: Mapping[str, float], random_source: random.Random) -> list[str]:
    """All makers, the heavier ones mostly first (Efraimidis and Spirakis 2006, algorithm A)."""
    return sorted(weights, key=lambda maker: -(random_source.random() ** (1 / weights[maker])))


def _make(
    maker: str,
    question: SquadQuestion,
    paragraph: SquadParagraph,
    drawn: Sequence[SquadParagraph],
    similar_words: SimilarWords,
    random_source: random.Random,
) -> tuple[str, str] | None:
    """A question and a passage, or ``None`` where the maker has nothing to change."""
    if maker == "elsewhere":
        return _elsewhere(question, drawn)
    if maker == "without":
        return _without(question, paragraph)
    siblings = [other.question for other in paragraph.questions if other is not question]
    asked = Asked(
        question=question.question,
        passage=paragraph.context,
        answers=[answer.text for answer in question.answers],
        siblings=siblings,
        strangers=[other.question for place in drawn for other in place.questions],
        similar_words=similar_words,
    )
    altered = ALTERATIONS[maker](asked, random_source)
    if altered is None or altered in {question.question, *siblings}:
        return None
    return altered, paragraph.context


def _elsewhere(question: SquadQuestion, drawn: Sequence[SquadParagraph]) -> tuple[str, str] | None:
    asked = set(_WORD.findall(question.question.lower()))
    nearest_first = sorted(drawn, key=lambda other: -len(asked.intersection(_WORD.findall(other.context.lower()))))
    for other in nearest_first:
        if not _holds_answer(other.context, question):
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


def _holds_answer(text: str, question: SquadQuestion) -> bool:
    normalised = f" {normalise_answer(text)} "
    golds = (normalise_answer(answer.text) for answer in question.answers)
    return any(not gold or f" {gold} " in normalised for gold in golds)
