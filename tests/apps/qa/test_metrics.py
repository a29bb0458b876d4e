"""Retrieval metrics against goldens."""

from __future__ import annotations

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


@pytest.mark.parametrize(
    ("found", "grades", "k", "expected"),
    [
        ("abcdef", {"a": 0, "b": 2, "c": 1, "d": 0, "e": 4, "f": 1}, 3, 0.30577967146869106),
        ("abcdef", {"a": 0, "b": 2, "c": 1, "d": 0, "e": 4, "f": 1}, 6, 0.5919187041603555),
        ("abcdef", {"a": 1, "b": 1}, 10, 1.0),
        ("fedcba", {"a": 1}, 5, 0.0),
    ],
)
def test_ndcg_is_that_of_scikit_learn(found: str, grades: dict[str, float], k: int, expected: float) -> None:
    """Goldens of ``sklearn.metrics.ndcg_score`` 1.9."""
    assert ndcg_at(found, grades, k) == pytest.approx(expected)


@pytest.mark.parametrize("grades", [{}, {"a": 0}, {"a": -1}])
def test_ndcg_without_anything_relevant(grades: dict[str, float]) -> None:
    assert ndcg_at(["a", "b"], grades, 10) == 0.0
