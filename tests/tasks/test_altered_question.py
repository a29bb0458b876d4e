"""Each alteration changes what it says and nothing else, and leaves a question alone that has nothing of its kind."""

from __future__ import annotations

import random

import pytest

from cypher.tasks.altered_question import ALTERATIONS, Asked

PASSAGE = (
    "The bridge of Ulm was finished by Anna Bauer in 1977, after the old ferry to Bonn had sunk in 1950. "
    "It is 412 metres long and carries the quiet road from Kiel."
)


def made(kind: str, question: str, *, answers: tuple[str, ...] = (), draws: int = 40, **context: object) -> set[str]:
    asked = Asked(question=question, passage=PASSAGE, answers=answers, **context)  # type: ignore[arg-type]
    found = {ALTERATIONS[kind](asked, random.Random(seed)) for seed in range(draws)}
    return {question for question in found if question is not None}


@pytest.mark.parametrize(
    ("kind", "question", "expected"),
    [
        ("name", "Who built the bridge of Ulm?", {f"Who built the bridge of {to}?" for to in ("Bonn", "Kiel")}),
        ("name", "Who built the bridge?", set()),
        ("number", "What sank in 1950?", {"What sank in 412?"}),  # 1977 is the answer
        ("number", "What sank?", set()),
        (
            "opposite",
            "When was the old ferry lost?",
            {"When was the new ferry lost?", "When was the old ferry gained?"},
        ),
        ("opposite", "Most of all, who?", {"Fewest of all, who?"}),
        ("opposite", "When was the ferry built of steel?", {"When was the ferry destroyed of steel?"}),
        ("opposite", "Who was there?", set()),
        ("negated", "What can carry a road?", {"What can't carry a road?"}),
        ("negated", "Which did not sink?", {"Which did sink?"}),
        ("negated", "Which isn't long?", {"Which is long?"}),
        ("negated", "Is the bridge long?", set()),  # yes or no answers both
        ("negated", "Who built it?", set()),
        ("word", "Who sunk it?", set()),  # no other word of this form
    ],
)
def test_what_becomes_of_a_question(kind: str, question: str, expected: set[str]) -> None:
    assert made(kind, question, answers=("1977", "Anna Bauer")) == expected


def test_a_year_without_another_number_moves_a_little() -> None:
    asked = Asked(question="Who came in 1977?", passage="Nobody came.", answers=("Nobody",))
    found = {ALTERATIONS["number"](asked, random.Random(seed)) for seed in range(40)}
    assert found == {f"Who came in {1977 + years}?" for years in (1, 2, 3, 5, 10)}


def test_another_word_has_the_same_form_and_is_no_answer() -> None:
    found = made(
        "word", "Which road was finished?", answers=("The bridge of Ulm",), siblings=["Which boat was painted?"]
    )
    # "road" follows a function word as "boat" does; "bridge" is in an answer; "painted" ends as "finished" does.
    assert {"Which boat was finished?", "Which road was painted?"} <= found
    assert not any("bridge" in question or "Bauer" in question for question in found)
    assert all(question.startswith("Which ") and " was " in question for question in found)


def test_a_splice_joins_two_questions_at_the_same_word() -> None:
    question, other = "Where was the ferry painted?", "When was the bridge of Ulm opened?"
    assert made("spliced", question, siblings=[other]) == {"Where was the bridge of Ulm opened?"}
    assert made("spliced", question, siblings=["Who sank?"]) == set()
    assert made("spliced", question) == set()


def test_a_transplant_asks_of_another_passage_with_names_of_this_one() -> None:
    found = made("transplanted", "Who?", answers=("Ulm",), strangers=["Who sang for Rome in 1801?"])
    names, years = ("Anna Bauer", "Bonn", "Kiel"), ("1977", "1950", "412")
    assert found <= {f"Who sang for {name} in {year}?" for name in names for year in years}
    assert len(found) > 3
    assert made("transplanted", "Who?", strangers=["who sings?"]) == set()


@pytest.mark.parametrize("kind", ALTERATIONS)
@pytest.mark.parametrize(
    "question", ["", "?", "Ünïcode – 漢字 2?", "(a+)+$ [x] \\1 of 1950?", "Ulm Ulm Ulm was was was 1 1 1"]
)
def test_odd_questions(kind: str, question: str) -> None:
    found = made(kind, question, siblings=["", "Who was it?"], strangers=["", question], draws=5)
    assert question not in found or kind == "transplanted"
