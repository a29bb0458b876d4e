"""From scores to probabilities and to one threshold, fitted on held-out rows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any


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
    """Fit scale and bias by logistic regression, and choose the threshold with the best F1 over all rows.

    Args:
        scores: Of the best span of each row.
        f1: What that span would earn, in [0, 1]; used as the regression's target.
        answerable: Whether the row has an answer; only an unanswerable row earns from "no answer".

    Returns:
        The calibration; the threshold is half-way between the two scores it divides.
    """
    finite = [(score, gain) for score, gain in zip(scores, f1, strict=True) if math.isfinite(score)]
    scale, bias = _fit_logistic([score for score, _ in finite], [gain for _, gain in finite])
    order = sorted(range(len(scores)), key=lambda row: scores[row])
    earned = best = sum(gain for gain, has in zip(f1, answerable, strict=True) if has)
    threshold = scores[order[0]] - 1.0 if order and math.isfinite(scores[order[0]]) else -math.inf
    for rank, row in enumerate(order):
        earned += -f1[row] if answerable[row] else 1.0
        upper = scores[order[rank + 1]] if rank + 1 < len(order) else scores[row] + 2.0
        if earned > best and upper > scores[row]:
            best, threshold = earned, (scores[row] + upper) / 2 if math.isfinite(scores[row]) else upper - 1.0
    return Calibration(scale=scale, bias=bias, threshold=threshold if math.isfinite(threshold) else -1e9)


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
