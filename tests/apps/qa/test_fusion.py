"""Score fusion: values worked out by hand, and its limits."""

from __future__ import annotations

import numpy as np
import pytest

from cypher.apps.qa.fusion import descending, fused, scaled, with_feedback


@pytest.mark.parametrize(
    ("values", "expected"),
    [([2, 4, 3], [0, 1, 0.5]), ([-1, 1], [0, 1]), ([3, 3], [1, 1]), ([0, 0], [0, 0]), ([5], [1])],
)
def test_scaled(values: list[float], expected: list[float]) -> None:
    assert scaled(np.array(values, dtype=np.float32)).tolist() == expected


def test_fused_is_the_weighted_mean_of_scaled_scores() -> None:
    cosines = np.array([0.9, 0.1, 0.5], dtype=np.float32)
    bm25 = np.array([0.0, 8.0, 2.0], dtype=np.float32)
    assert fused(cosines, bm25) == pytest.approx([0.6, 0.4, 0.6 * 0.5 + 0.4 * 0.25])


def test_feedback_moves_towards_the_best_three_only() -> None:
    vectors = np.eye(4, dtype=np.float32)
    query = vectors[3]
    moved = with_feedback(query, vectors, np.array([0.9, 0.8, 0.7, 0.1], dtype=np.float32))
    towards = 0.3 / np.sqrt(3)
    expected = np.array([towards, towards, towards, 1]) / np.sqrt(3 * towards**2 + 1)
    assert moved == pytest.approx(expected)
    assert with_feedback(query, -vectors[3:], np.ones(1, dtype=np.float32)) == pytest.approx(query)


def test_equal_scores_keep_their_order() -> None:
    assert descending(np.array([1, 2, 2, 0, 2], dtype=np.float32)).tolist() == [1, 2, 4, 0, 3]
