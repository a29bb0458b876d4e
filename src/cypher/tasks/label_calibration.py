"""From logits to probabilities that mean what they say, and to labels, fitted on held-out rows."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

# A temperature outside of this is no calibration: held-out rows that are all right would want 0.
_SHARPEST, _FLATTEST = 0.1, 10.0


def fit_temperature(logits: NDArray[Any], labels: NDArray[Any], *, multi_label: bool) -> float:
    """The temperature under which the held-out rows are most likely (Guo et al. 2017, arXiv 1706.04599, section 4.2).

    Their likelihood is concave in one over the temperature, so where its slope is 0 is found by halving.

    Args:
        logits: ``(rows, labels)``.
        labels: ``(rows, labels)``, 1 where a row has the label.
        multi_label: Whether each label is judged by itself.
    """

    def slope(inverse: float) -> float:
        expected = probabilities_of(logits, temperature=1 / inverse, multi_label=multi_label)
        return float(((expected - labels) * logits).sum())

    low, high = 1 / _FLATTEST, 1 / _SHARPEST
    for _ in range(40):
        middle = (low * high) ** 0.5
        low, high = (middle, high) if slope(middle) < 0 else (low, middle)
    return float(1 / low)


def probabilities_of(logits: NDArray[Any], *, temperature: float, multi_label: bool) -> NDArray[np.float64]:
    """``softmax(logits / temperature)``, or the sigmoid where each label is judged by itself; ``(rows, labels)``."""
    scaled = np.asarray(logits, dtype=np.float64) / temperature
    if multi_label:
        probabilities: NDArray[np.float64] = 0.5 * (1 + np.tanh(scaled / 2))
        return probabilities
    exponentials = np.exp(scaled - scaled.max(-1, keepdims=True))
    shares: NDArray[np.float64] = exponentials / exponentials.sum(-1, keepdims=True)
    return shares


def best_thresholds(probabilities: NDArray[Any], labels: NDArray[Any]) -> list[float]:
    """For each label the threshold of the largest F1; between two neighbouring probabilities their middle is taken.

    Args:
        probabilities: ``(rows, labels)``.
        labels: ``(rows, labels)``, 1 where a row has the label.

    Returns:
        One a label; 0.5 for a label that no row has.

    Example:
        >>> best_thresholds(np.array([[0.9], [0.6], [0.2]]), np.array([[1], [1], [0]]))
        [0.4]
    """
    return [_best_threshold(probabilities[:, place], labels[:, place]) for place in range(labels.shape[1])]


def _best_threshold(probabilities: NDArray[Any], truth: NDArray[Any]) -> float:
    n_right = truth.sum()
    if not n_right:
        return 0.5
    order = np.argsort(-probabilities, kind="stable")
    sorted_ones = probabilities[order]
    f1 = 2 * np.cumsum(truth[order]) / (np.arange(1, len(order) + 1) + n_right)
    # A threshold cannot stand between equal probabilities.
    f1[:-1][sorted_ones[:-1] == sorted_ones[1:]] = -1
    last = int(f1.argmax())
    below = sorted_ones[last + 1] if last + 1 < len(order) else 0.0
    return float((sorted_ones[last] + below) / 2)
