"""Each alteration changes what it says and nothing else, and leaves a question alone that has nothing of its kind."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest

from cypher.tasks.altered_question import ALTERATIONS, Asked
from cypher.tasks.similar_words import SimilarWords

PASSAGE = (
    "The bridge of Ulm was finished by Anna Bauer in 1977, after the old ferry to Bonn had sunk in 1950. "
    "It is 412 metres long and carries the quiet road from Kiel."
)


Made = Callable[..., set[str]]


@pytest.fixture
def made(similar_words: SimilarWords) -> Made:
    """All that a kind makes of a question in so many draws."""

    def call(kind: str, question: str, *, passage: str = PASSAGE, draws: int = 40, **context: Any) -> set[str]:
        asked = Asked(**{"answers": (), **context}, question=question, passage=passage, similar_words=similar_words)
        found = {ALTERATIONS[kind](asked, random.Random(seed)) for seed in range(draws)}
        return {question for question in found if question is not None}

    return call


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
        ("similar", "Who finished it?", {"Who painted it?"}),
        ("similar", "Quiet, the road?", {"Noisy, the road?", "Quiet, the bridge?", "Quiet, the boat?"}),
        ("similar", "Who sank?", set()),  # no vector
        ("similar", "Which castle?", set()),  # not in the passage
    ],
)
def test_what_becomes_of_a_question(made: Made, kind: str, question: str, expected: set[str]) -> None:
    assert made(kind, question, answers=("1977", "Anna Bauer")) == expected


def test_a_year_without_another_number_moves_a_little(made: Made) -> None:
    found = made("number", "Who came in 1977?", passage="Nobody came.", answers=("Nobody",))
    assert found == {f"Who came in {1977 + years}?" for years in (1, 2, 3, 5, 10)}


@pytest.mark.parametrize(
    ("kind", "question", "left"),
    [
        ("number", "In 27 of the 279274 cases?", "279274"),
        ("number", "Was 19 before 1950?", "1950"),
        ("name", "Is Ann older than Annabel?", "Annabel"),
        ("transplanted", "Is Ann older than Annabel?", None),
    ],
)
def test_what_is_changed_is_never_a_part_of_a_word(made: Made, kind: str, question: str, left: str | None) -> None:
    found = made(kind, question, strangers=[question])
    assert found
    words = {word for made_question in found for word in made_question.strip("?").split()}
    known = set(PASSAGE.replace(",", "").replace(".", "").split()) | set(question.strip("?").split())
    near = {str(year + more) for year in (19, 27, 1950, 279274) for more in (1, 2, 3, 5, 10)}
    assert words <= known | near
    assert left is None or any(left in made_question for made_question in found)


def test_another_word_has_the_same_form_and_is_no_answer(made: Made) -> None:
    found = made(
        "word", "Which road was finished?", answers=("The bridge of Ulm",), siblings=["Which boat was painted?"]
    )
    # "road" follows a function word as "boat" does; "bridge" is in an answer; "painted" ends as "finished" does.
    assert {"Which boat was finished?", "Which road was painted?"} <= found
    assert not any("bridge" in question or "Bauer" in question for question in found)
    assert all(question.startswith("Which ") and " was " in question for question in found)


def test_another_word_is_one_of_the_likest(made: Made) -> None:
    """ "castle" is like "bridge"; eight others of its form are not."""
    others = ["Which boat was it?", *(f"Which {word} was it?" for word in "aaaa bbbb cccc dddd eeee ffff gggg".split())]
    found = made(
        "word", "Which bridge was it?", draws=80, siblings=["Which castle was it?", *others], passage="A bridge."
    )
    assert "Which castle was it?" in found
    assert len(found) <= 6


def test_a_similar_word_is_no_answer(made: Made) -> None:
    assert made("similar", "Which bridge?", passage="A bridge.", answers=("the castle",)) == {"Which road?"}


def test_a_splice_joins_two_questions_at_the_same_word(made: Made) -> None:
    question, other = "Where was the ferry painted?", "When was the bridge of Ulm opened?"
    assert made("spliced", question, siblings=[other]) == {"Where was the bridge of Ulm opened?"}
    assert made("spliced", question, siblings=["Who sank?"]) == set()
    assert made("spliced", question) == set()


def test_a_transplant_asks_of_another_passage_with_names_of_this_one(made: Made) -> None:
    found = made("transplanted", "Who?", answers=("Ulm",), strangers=["Who sang for Rome in 1801?"])
    names, years = ("Anna Bauer", "Bonn", "Kiel"), ("1977", "1950", "412")
    assert found <= {f"Who sang for {name} in {year}?" for name in names for year in years}
    assert len(found) > 3
    assert made("transplanted", "Who?", strangers=["who sings?"]) == set()


@pytest.mark.parametrize("kind", ALTERATIONS)
@pytest.mark.parametrize(
    "question", ["", "?", "Ünïcode – 漢字 2?", "(a+)+$ [x] \\1 of 1950?", "Ulm Ulm Ulm was was was 1 1 1"]
)
def test_odd_questions(made: Made, kind: str, question: str) -> None:
    found = made(kind, question, siblings=["", "Who was it?"], strangers=["", question], draws=5)
    assert question not in found or kind == "transplanted"
