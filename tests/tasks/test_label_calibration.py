"""The temperature is the most likely one; thresholds are the best there are."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from sklearn.metrics import f1_score

from cypher.tasks.label_calibration import best_thresholds, fit_temperature, probabilities_of

DRAW = np.random.default_rng(0)


def drawn(n: int, *, sharpness: float, multi_label: bool) -> tuple[np.ndarray, np.ndarray]:
    """Logits that are ``sharpness`` times those that labels were drawn from."""
    true = DRAW.normal(size=(n, 3)) * 2
    probabilities = probabilities_of(true, temperature=1.0, multi_label=multi_label)
    if multi_label:
        labels = (DRAW.random(true.shape) < probabilities).astype(float)
    else:
        labels = np.eye(3)[[DRAW.choice(3, p=row) for row in probabilities]]
    return true * sharpness, labels


@pytest.mark.parametrize("multi_label", [False, True])
@pytest.mark.parametrize("sharpness", [0.4, 1.0, 3.0])
def test_temperature_undoes_what_sharpened_the_logits(sharpness: float, multi_label: bool) -> None:
    logits, labels = drawn(800, sharpness=sharpness, multi_label=multi_label)

    def unlikely(temperature: float) -> float:
        p = probabilities_of(logits, temperature=temperature, multi_label=multi_label)
        terms = np.where(labels > 0, p, 1 - p) if multi_label else (p * labels).sum(1)
        return -np.log(terms).sum()

    found = fit_temperature(logits, labels, multi_label=multi_label)
    assert found == pytest.approx(sharpness, rel=0.2)
    assert found == pytest.approx(minimize_scalar(unlikely, bounds=(0.1, 10), method="bounded").x, rel=1e-3)


def test_rows_that_are_all_right_leave_the_temperature_bounded() -> None:
    assert 0.1 <= fit_temperature(np.eye(3) * 5, np.eye(3), multi_label=False) < 0.2
    assert fit_temperature(np.eye(3)[::-1] * 5 + 0.0, np.eye(3), multi_label=False) <= 10


def test_thresholds_of_each_label_are_the_best_there_are() -> None:
    probabilities = np.round(DRAW.random((80, 4)), 1)  # many are equal
    labels = (DRAW.random((80, 4)) < probabilities).astype(float)
    labels[:, 3] = 0
    found = best_thresholds(probabilities, labels, average="macro")
    for label in range(3):
        tried = np.append(np.unique(probabilities[:, label]), 1.1)
        best = max(f1_score(labels[:, label], probabilities[:, label] >= t, zero_division=0) for t in tried)
        own = f1_score(labels[:, label], probabilities[:, label] >= found[label])
        assert own == pytest.approx(best)
    assert found[3] == 0.5


@pytest.mark.parametrize("seed", range(5))
def test_thresholds_of_all_decisions_together_are_the_best_there_are(seed: int) -> None:
    draw = np.random.default_rng(seed)
    probabilities = np.round(draw.random((7, 3)), 1)
    # The third label was not learnt: it has nothing to do with its probabilities.
    labels = (draw.random((7, 3)) < np.c_[probabilities[:, :2], np.full(7, 0.2)]).astype(float)
    labels[0] = 1

    def micro(thresholds: Sequence[float]) -> float:
        return f1_score(labels, probabilities >= np.array(thresholds), average="micro", zero_division=0)

    tried = [np.append(np.unique(probabilities[:, label]), 1.1) for label in range(3)]
    best = max(micro(thresholds) for thresholds in itertools.product(*tried))
    assert micro(best_thresholds(probabilities, labels, average="micro")) == pytest.approx(best)
