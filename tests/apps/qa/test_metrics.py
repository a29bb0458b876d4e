"""Retrieval metrics against goldens and scikit-learn."""

from __future__ import annotations

import random

import pytest

from cypher.apps.qa.metrics import first_rank, mean_reciprocal_rank, ndcg_at, recall_at


@pytest.mark.parametrize(
    ("found", "relevant", "rank"),
    [
        (["a", "b"], {"a"}, 1),
        (["b", "b", "a", "a"], {"a"}, 3),
        (["c", "b"], {"a", "b"}, 2),
        (["c"], {"a"}, None),
        ([], {"a"}, None),
        (["a"], set(), None),
    ],
)
def test_first_rank(found: list[str], relevant: set[str], rank: int | None) -> None:
    assert first_rank(found, relevant) == rank


def test_recall_and_reciprocal_rank() -> None:
    ranks = [1, 2, 10, 11, None]
    assert [recall_at(ranks, k) for k in (1, 2, 10, 11)] == [0.2, 0.4, 0.6, 0.8]
    assert mean_reciprocal_rank(ranks) == pytest.approx((1 + 1 / 2 + 1 / 10 + 1 / 11) / 5)
    assert recall_at([], 1) == mean_reciprocal_rank([]) == 0.0


def test_ndcg_is_that_of_scikit_learn() -> None:
    sklearn = pytest.importorskip("sklearn.metrics")
    draw = random.Random(5)
    for _ in range(30):
        names = [f"d{n}" for n in range(15)]
        grades = {name: float(draw.choice([0, 0, 1, 2, 4])) for name in names}
        found = draw.sample(names, 15)
        relevance = [[grades[name] for name in names]]
        scores = [[-float(found.index(name)) for name in names]]
        for k in (1, 5, 10):
            assert ndcg_at(found, grades, k) == pytest.approx(sklearn.ndcg_score(relevance, scores, k=k))


@pytest.mark.parametrize("grades", [{}, {"a": 0}, {"a": -1}])
def test_ndcg_without_anything_relevant(grades: dict[str, float]) -> None:
    assert ndcg_at(["a", "b"], grades, 10) == 0.0
