"""From scores to probabilities and to one threshold, fitted on held-out rows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """How to read a span's score.

    Args:
        scale: ``probability = sigmoid(scale · score + bias)`` (Platt 1999).
        bias: See ``scale``.
        threshold: Scores below it mean "no answer".
    """

    scale: float = 0.1
    bias: float = 0.0
    threshold: float = 0.0

    def probability(self, score: float) -> float:
        """Chance that an answer with this score is right."""
        exponent = max(-60.0, min(60.0, self.scale * score + self.bias))
        return 1 / (1 + math.exp(-exponent))

    def to_dict(self) -> dict[str, Any]:
        """Plain values for a JSON file."""
        return asdict(self)


def fit_calibration(scores: Sequence[float], f1: Sequence[float], *, answerable: Sequence[bool]) -> Calibration:
    """Fit scale and bias by logistic regression, and choose the threshold.

    Many thresholds earn about the same F1 over all rows, and which of them is best by a hair is chance. Of those within
    one standard error of the best (the rule of Breiman et al. 1984, section 3.4.3) the one is taken under which rows
    with and rows without an answer fare most alike: made pairs without an answer are easier than those that people
    write, and the best threshold on them alone refuses too much.

    Args:
        scores: Of the best span of each row.
        f1: What that span would earn, in [0, 1]; used as the regression's target.
        answerable: Whether the row has an answer; only an unanswerable row earns from "no answer".
    """
    finite = [(score, gain) for score, gain in zip(scores, f1, strict=True) if math.isfinite(score)]
    scale, bias = _fit_logistic([score for score, _ in finite], [gain for _, gain in finite])
    return Calibration(scale=scale, bias=bias, threshold=_choose_threshold(scores, f1, answerable))


def _choose_threshold(scores: Sequence[float], f1: Sequence[float], answerable: Sequence[bool]) -> float:
    finite = sorted({score for score in scores if math.isfinite(score)})
    if not finite:
        return 0.0
    between = [(low + high) / 2 for low, high in pairwise(finite)]
    thresholds = np.array([finite[0] - 1.0, *between, finite[-1] + 1.0])
    score, has, gain = np.asarray(scores), np.asarray(answerable), np.asarray(f1)
    # By rising threshold: what rows with an answer still earn, what rows without one earn by now, and the squares.
    answered = _at_or_above(thresholds, score[has], gain[has])
    refused = (~has).sum() - _at_or_above(thresholds, score[~has], np.ones((~has).sum()))
    squares = _at_or_above(thresholds, score[has], gain[has] ** 2) + refused
    mean = (answered + refused) / len(score)
    best = int(mean.argmax())
    error = math.sqrt(max(0.0, squares[best] / len(score) - mean[best] ** 2) / len(score))
    gap = np.abs(answered / max(1, has.sum()) - refused / max(1, (~has).sum()))
    if has.all() or not has.any():
        gap = -mean  # one kind alone: simply the best
    return float(thresholds[np.where(mean >= mean[best] - error, gap, np.inf).argmin()])


def _at_or_above(thresholds: NDArray[Any], scores: NDArray[Any], values: NDArray[Any]) -> NDArray[Any]:
    """Sum of the values whose score is at or above each threshold."""
    order = np.argsort(scores)
    sums = np.concatenate([np.cumsum(values[order][::-1])[::-1], [0.0]])
    above: NDArray[Any] = sums[np.searchsorted(scores[order], thresholds, side="left")]
    return above


def _fit_logistic(scores: Sequence[float], targets: Sequence[float], steps: int = 50) -> tuple[float, float]:
    """Newton's method with a small ridge, so that separable rows do not run to infinity."""
    scale, bias, ridge = 0.1, 0.0, 1e-3
    for _ in range(steps if scores else 0):
        calibration = Calibration(scale=scale, bias=bias)
        gradient_scale, gradient_bias = ridge * scale, ridge * bias
        curve_scale = curve_bias = ridge
        curve_both = 0.0
        for score, target in zip(scores, targets, strict=True):
            probability = calibration.probability(score)
            slope = probability * (1 - probability)
            gradient_scale += (probability - target) * score
            gradient_bias += probability - target
            curve_scale += slope * score * score
            curve_both += slope * score
            curve_bias += slope
        determinant = curve_scale * curve_bias - curve_both * curve_both
        if determinant <= 1e-12:
            break
        change_scale = (curve_bias * gradient_scale - curve_both * gradient_bias) / determinant
        change_bias = (curve_scale * gradient_bias - curve_both * gradient_scale) / determinant
        scale, bias = scale - change_scale, bias - change_bias
        if abs(change_scale) + abs(change_bias) < 1e-9:
            break
    return scale, bias
