"""The threshold is the best there is; the scale is logistic regression's."""

from __future__ import annotations

import random

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from cypher.tasks.calibration import Calibration, fit_calibration


def rows(n: int) -> tuple[list[float], list[float], list[bool]]:
    draw = random.Random(5)
    answerable = [draw.random() < 0.6 for _ in range(n)]
    scores = [draw.gauss(2.0 if has else -1.0, 2.0) for has in answerable]
    f1 = [float(has and draw.random() < 0.8) for has in answerable]
    return scores, f1, answerable


def earned(threshold: float, scores: list[float], f1: list[float], answerable: list[bool]) -> float:
    return sum(
        (gain if score >= threshold else 0.0) if has else float(score < threshold)
        for score, gain, has in zip(scores, f1, answerable, strict=True)
    )


def by_kind(threshold: float, scores: list[float], f1: list[float], answerable: list[bool]) -> tuple[float, float]:
    """Mean of what rows with an answer earn, and of what those without one do."""
    kinds = []
    for kind in (True, False):
        rows_of_kind = [row for row, has in enumerate(answerable) if has == kind]
        chosen = ([values[row] for row in rows_of_kind] for values in (scores, f1, answerable))
        kinds.append(earned(threshold, *chosen) / len(rows_of_kind))
    return kinds[0], kinds[1]


def test_threshold_is_the_fairest_within_one_standard_error_of_the_best() -> None:
    scores, f1, answerable = rows(300)
    candidates = [score + nudge for score in scores for nudge in (-1e-6, 1e-6)]
    best = max(candidates, key=lambda candidate: earned(candidate, scores, f1, answerable))
    gains = [
        (gain if score >= best else 0.0) if has else float(score < best)
        for score, gain, has in zip(scores, f1, answerable, strict=True)
    ]
    enough = sum(gains) - np.std(gains) * np.sqrt(len(gains))

    def gap(threshold: float) -> float:
        kinds = by_kind(threshold, scores, f1, answerable)
        return abs(kinds[0] - kinds[1])

    chosen = fit_calibration(scores, f1, answerable=answerable).threshold
    assert earned(chosen, scores, f1, answerable) >= enough - 1e-9
    good = [candidate for candidate in candidates if earned(candidate, scores, f1, answerable) >= enough]
    assert gap(chosen) == pytest.approx(min(map(gap, good)))
    assert gap(chosen) < gap(best)


@pytest.mark.parametrize("shift", [0.0, 30.0, -30.0])
def test_kinds_far_apart_are_told_apart(shift: float) -> None:
    scores, answerable = [shift + sign * 9.0 for sign in (-1, 1) for _ in range(50)], [False] * 50 + [True] * 50
    chosen = fit_calibration(scores, [float(has) for has in answerable], answerable=answerable).threshold
    assert chosen == pytest.approx(shift)


def test_probability_equals_logistic_regression() -> None:
    scores, f1, answerable = rows(400)
    fitted = fit_calibration(scores, f1, answerable=answerable)
    oracle = LogisticRegression(C=1e6).fit(np.array(scores).reshape(-1, 1), np.array(f1))
    assert fitted.scale == pytest.approx(oracle.coef_[0, 0], rel=1e-2)
    assert fitted.bias == pytest.approx(oracle.intercept_[0], rel=1e-2, abs=1e-2)


@pytest.mark.parametrize(
    ("scores", "f1", "answerable"),
    [
        ([], [], []),
        ([float("-inf")], [0.0], [True]),
        ([1.0, 2.0], [1.0, 1.0], [True, True]),
        ([1.0, 2.0], [0.0, 0.0], [False, False]),
        ([3.0, 3.0], [1.0, 0.0], [True, False]),
    ],
)
def test_edges_are_finite(scores: list[float], f1: list[float], answerable: list[bool]) -> None:
    fitted = fit_calibration(scores, f1, answerable=answerable)
    assert np.isfinite([fitted.scale, fitted.bias, fitted.threshold]).all()
    assert 0 <= fitted.probability(1e9) <= 1
    if answerable and not any(answerable):
        assert earned(fitted.threshold, scores, f1, answerable) == len(scores)


def test_round_trip() -> None:
    calibration = Calibration(scale=0.3, bias=-1.0, threshold=0.5)
    assert Calibration(**calibration.to_dict()) == calibration
