"""From logits to probabilities that mean what they say, and to labels, fitted on held-out rows."""

from __future__ import annotations

from typing import Any, Literal

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


def best_thresholds(
    probabilities: NDArray[Any], labels: NDArray[Any], *, average: Literal["macro", "micro"]
) -> list[float]:
    """The thresholds of the largest F1; between two neighbouring probabilities their middle is taken.

    The mean of the labels' F1 is largest where each is. That of all decisions together is ``2 hits / (found + right)``,
    a ratio that Dinkelbach's iteration (1967, Management Science 13:7) makes as large as it can be: a label that was
    hardly learnt is then found never rather than always.

    Args:
        probabilities: ``(rows, labels)``.
        labels: ``(rows, labels)``, 1 where a row has the label.
        average: Of which F1.

    Returns:
        One a label; 0.5 for a label that no row has.

    Example:
        >>> best_thresholds(np.array([[0.9], [0.6], [0.2]]), np.array([[1], [1], [0]]), average="macro")
        [0.4]
    """
    cuts = [_Cuts(probabilities[:, place], labels[:, place]) for place in range(labels.shape[1])]
    if average == "macro":
        return [cut.threshold(int((2 * cut.hits / (cut.found + max(1, cut.n_right))).argmax())) for cut in cuts]
    reached = 0.0
    while True:
        chosen = [int((2 * cut.hits - reached * cut.found).argmax()) for cut in cuts]
        hits = sum(cut.hits[at] for cut, at in zip(cuts, chosen, strict=True))
        found = sum(cut.found[at] for cut, at in zip(cuts, chosen, strict=True))
        f1 = 2 * hits / max(1, found + sum(cut.n_right for cut in cuts))
        if f1 <= reached + 1e-12:
            return [cut.threshold(at) for cut, at in zip(cuts, chosen, strict=True)]
        reached = float(f1)


class _Cuts:
    """Every way to call the rows with the highest probabilities right: how many there are, and how many are hits."""

    def __init__(self, probabilities: NDArray[Any], truth: NDArray[Any]) -> None:
        order = np.argsort(-probabilities, kind="stable")
        values = probabilities[order]
        # A threshold cannot stand between equal probabilities.
        ends = np.flatnonzero(np.append(values[:-1] != values[1:], True)) + 1
        self.n_right = int(truth.sum())
        self.found = np.append(0, ends)
        self.hits = np.append(0, np.cumsum(truth[order])[ends - 1])
        above, below = np.append(1.0, values[ends - 1]), np.append(values[ends - 1], 0.0)
        self._middles = (above + below) / 2

    def threshold(self, cut: int) -> float:
        """Below the rows of a cut and above all others."""
        return float(self._middles[cut]) if self.n_right else 0.5
