"""Pairs without an answer: each maker does what it says, and no gold answer is left in a passage."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from cypher.data.readers import SquadAnswer, SquadParagraph, SquadQuestion
from cypher.tasks.answer_metrics import normalise_answer
from cypher.tasks.similar_words import SimilarWords
from cypher.tasks.unanswerable import MISLEADING, WEIGHTS, _order, unanswerable_rows


def paragraph(context: str, question: str, answer: str, title: str = "towns") -> SquadParagraph:
    gold = SquadAnswer(text=answer, start=context.index(answer))
    asked = SquadQuestion(id=question, question=question, answers=(gold,), is_impossible=False)
    return SquadParagraph(title=title, context=context, questions=(asked,))


PARAGRAPHS = [
    paragraph(
        "The fair of Ulm is in June. People come from Bonn by train. In 1977 it was moved to the river. It rains.",
        "Since when, after 1950, has the fair of Ulm been at the river?",
        "1977",
    ),
    paragraph("The fair of Kiel has a river, too. It is in May.", "When is the fair of Kiel?", "May"),
    paragraph("Nothing is known of the hills.", "What is known of the hills?", "Nothing"),
    paragraph("One sentence alone says four.", "How many are said alone?", "four", title="alone"),
]


def rows_by_maker(similar_words: SimilarWords, per_question: float = 9.0) -> dict[str, dict[str, tuple[str, str]]]:
    made: dict[str, dict[str, tuple[str, str]]] = {}
    for row in unanswerable_rows(PARAGRAPHS, per_question=per_question, seed=0, similar_words=similar_words):
        question, maker = row.id.rsplit("-", 1)
        made.setdefault(maker, {})[question] = (row.question, row.passage)
    return made


def test_each_maker(similar_words: SimilarWords) -> None:
    made = rows_by_maker(similar_words)
    fair, kiel = PARAGRAPHS[0].questions[0].question, PARAGRAPHS[1].questions[0].question
    assert made["elsewhere"][fair] == (fair, PARAGRAPHS[1].context)  # the nearest by words, not the hills
    assert made["without"][fair] == (fair, "The fair of Ulm is in June. People come from Bonn by train. It rains.")
    assert made["without"][kiel][1] == "The fair of Kiel has a river, too."
    question, passage = made["name"][fair]
    assert passage == PARAGRAPHS[0].context
    assert question in {fair.replace("Ulm", "Bonn"), fair.replace("Ulm", "June")}
    alone = PARAGRAPHS[3].questions[0].question
    assert [maker for maker, rows in made.items() if alone in rows] == [
        "negated"
    ]  # one sentence, nothing else to change


def test_kinds_are_drawn_by_weight() -> None:
    first = Counter(_order(WEIGHTS, random.Random(seed))[0] for seed in range(4000))
    assert set(first) == set(WEIGHTS)
    for maker, weight in WEIGHTS.items():
        assert first[maker] / 4000 == pytest.approx(weight / sum(WEIGHTS.values()), abs=0.02)


def test_misleading_pairs_keep_the_passage(similar_words: SimilarWords) -> None:
    rows = unanswerable_rows(PARAGRAPHS, per_question=9, seed=0, similar_words=similar_words, weights=MISLEADING)
    assert rows
    assert {row.passage for row in rows} <= {place.context for place in PARAGRAPHS}
    assert all(row.question != row.id.rsplit("-", 1)[0] for row in rows)


def test_no_question_of_the_passage_is_made_unanswerable(similar_words: SimilarWords) -> None:
    """Asked in other words by a neighbour, an altered question may be one that the passage answers."""
    context = "Ulm won in 1977 and Bonn won in 1978."
    questions = tuple(
        SquadQuestion(
            id=year,
            question=f"Which town won in {year}?",
            answers=(SquadAnswer(text=town, start=context.index(town)),),
            is_impossible=False,
        )
        for year, town in (("1977", "Ulm"), ("1978", "Bonn"))
    )
    place = SquadParagraph(title="towns", context=context, questions=questions)
    for seed in range(20):
        made = {
            row.question for row in unanswerable_rows([place], per_question=9, seed=seed, similar_words=similar_words)
        }
        assert made.isdisjoint(question.question for question in questions)


def test_no_gold_answer_is_left(similar_words: SimilarWords) -> None:
    golds = {asked.id: asked.answers[0].text for place in PARAGRAPHS for asked in place.questions}
    for maker, rows in rows_by_maker(similar_words).items():
        if maker in {"elsewhere", "without"}:  # the others keep the passage and change the question
            assert all(
                f" {golds[name].lower()} " not in f" {normalise_answer(text)} " for name, (_, text) in rows.items()
            )


@pytest.mark.parametrize(("per_question", "least", "most"), [(0.0, 0, 0), (0.5, 1, 3), (1.0, 4, 4), (9.0, 12, 20)])
def test_number_and_repetition(similar_words: SimilarWords, per_question: float, least: int, most: int) -> None:
    rows = unanswerable_rows(PARAGRAPHS, per_question=per_question, seed=4, similar_words=similar_words)
    assert least <= len(rows) <= most
    assert rows == unanswerable_rows(PARAGRAPHS, per_question=per_question, seed=4, similar_words=similar_words)
    assert all(row.answers == () for row in rows)
