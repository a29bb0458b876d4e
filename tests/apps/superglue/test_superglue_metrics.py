"""Metrics equal scikit-learn's where it has them, and the aggregate equals the leaderboard's."""

from __future__ import annotations

import random
from typing import Any

import pytest
from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef

from cypher.apps.superglue.benchmark import SCORED, TASKS
from cypher.apps.superglue.metrics import (
    accuracy,
    benchmark_score,
    gender_parity,
    macro_f1,
    matthews,
    score,
    task_score,
)
from cypher.apps.superglue.published import PUBLISHED, Published
from cypher.apps.superglue.rows import (
    CB_LABELS,
    RTE_LABELS,
    EntailmentRow,
    MultiRcAnswer,
    MultiRcQuestion,
    MultiRcRow,
    RecordQuery,
    RecordRow,
)
from cypher.errors import DataError


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("seen", [1, 2, 3])
def test_class_metrics_equal_scikit_learn(seed: int, seen: int) -> None:
    draw = random.Random(seed)
    labels = draw.choices(CB_LABELS, k=25)
    found = draw.choices(CB_LABELS[:seen], k=25)
    assert accuracy(labels, found) == pytest.approx(accuracy_score(labels, found))
    expected = f1_score(labels, found, labels=list(CB_LABELS), average="macro", zero_division=0)
    assert macro_f1(labels, found, classes=CB_LABELS) == pytest.approx(expected)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("seen", [1, 2])
def test_matthews_equals_scikit_learn(seed: int, seen: int) -> None:
    draw = random.Random(seed)
    labels, found = draw.choices(RTE_LABELS, k=31), draw.choices(RTE_LABELS[:seen], k=31)
    assert matthews(labels, found, positive="entailment") == pytest.approx(matthews_corrcoef(labels, found))


def passage(idx: int, *questions: list[int]) -> MultiRcRow:
    return MultiRcRow(
        idx=idx,
        passage="a passage",
        questions=tuple(
            MultiRcQuestion(
                idx=number,
                question="what?",
                answers=tuple(MultiRcAnswer(idx=place, text="x", label=label) for place, label in enumerate(labels)),
            )
            for number, labels in enumerate(questions)
        ),
    )


@pytest.mark.parametrize("seed", range(6))
def test_multirc_counts_answers_over_all_and_questions_as_a_whole(seed: int) -> None:
    draw = random.Random(seed)
    golds = [[draw.choices((0, 1), k=draw.randint(1, 4)) for _ in range(draw.randint(1, 3))] for _ in range(5)]
    found = [[[draw.choice((0, 1)) for _ in labels] for labels in questions] for questions in golds]
    rows = [passage(idx, *questions) for idx, questions in enumerate(golds)]
    got = score(TASKS["multirc"], rows, found)
    flat_gold = [label for questions in golds for labels in questions for label in labels]
    flat_found = [label for questions in found for labels in questions for label in labels]
    assert got["f1a"] == pytest.approx(f1_score(flat_gold, flat_found, zero_division=0))
    assert got["accuracy"] == pytest.approx(accuracy_score(flat_gold, flat_found))
    asked = [labels for questions in golds for labels in questions]
    judged = [labels for questions in found for labels in questions]
    whole = [gold == given for gold, given in zip(asked, judged, strict=True)]
    assert got["em"] == pytest.approx(sum(whole) / len(whole))
    assert task_score(TASKS["multirc"], got) == pytest.approx((got["f1a"] + got["em"]) / 2)


def test_record_takes_the_best_answer_after_normalisation() -> None:
    row = RecordRow(
        idx=0,
        passage="The U.S. and Benazir Bhutto",
        mentions=("The U.S.", "Benazir Bhutto"),
        queries=(
            RecordQuery(idx=1, query="@placeholder", answers=("US", "America")),
            RecordQuery(idx=2, query="@placeholder", answers=("Bhutto", "Asif Zardari")),
        ),
    )
    got = score(TASKS["record"], [row], [("The U.S.", "Benazir Bhutto")])
    assert got == {"f1": pytest.approx((1 + 2 / 3) / 2), "em": 0.5}


def winogender(idx: int, pair_id: int | None = None) -> EntailmentRow:
    return EntailmentRow(idx=idx, premise="a", hypothesis="b", label="entailment", pair_id=pair_id)


def test_gender_parity_counts_pairs_that_are_answered_alike() -> None:
    yes, no = RTE_LABELS
    neighbours = [winogender(idx) for idx in (0, 1, 2, 3)]
    assert gender_parity(neighbours, [yes, yes, yes, no]) == 0.5
    assert gender_parity(neighbours[::-1], [no, yes, yes, yes]) == 0.5
    named = [winogender(0, 7), winogender(1, 8), winogender(2, 7), winogender(3, 8)]
    assert gender_parity(named, [yes, no, yes, no]) == 1.0
    assert score(TASKS["ax-g"], named, [yes, no, yes, no]) == {"gender_parity": 1.0, "accuracy": 0.5}
    with pytest.raises(DataError, match="1 of 2 pairs of AX-g have not 2 rows"):
        gender_parity(neighbours[:3], [yes, yes, no])


@pytest.mark.parametrize("row", PUBLISHED, ids=lambda row: row.name)
def test_the_mean_of_a_published_row_is_the_published_mean(row: Published) -> None:
    mean = benchmark_score(row.metrics)
    assert mean is not None
    assert abs(mean - row.score) <= 0.05 + 1e-9


def test_the_mean_needs_all_eight_and_leaves_diagnostics_out() -> None:
    full: dict[str, Any] = dict(PUBLISHED[-1].metrics)
    assert benchmark_score({**full, "ax-b": {"mcc": -100.0}}) == benchmark_score(full)
    for key in SCORED:
        assert benchmark_score({other: value for other, value in full.items() if other != key}) is None
