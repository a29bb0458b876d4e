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


def test_threshold_earns_as_much_as_any_other() -> None:
    scores, f1, answerable = rows(300)
    chosen = fit_calibration(scores, f1, answerable=answerable).threshold
    best = max(earned(score + nudge, scores, f1, answerable) for score in scores for nudge in (-1e-6, 1e-6))
    assert earned(chosen, scores, f1, answerable) == pytest.approx(best)


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
