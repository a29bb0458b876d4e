"""Scores of labels equal scikit-learn's, on random rows and at the edges."""

from __future__ import annotations

import random

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef

from cypher.tasks.label_metrics import multi_label_scores, single_label_scores

DRAW = random.Random(0)
LABELS = ["a", "b", "c", "d"]
SINGLE = [
    ([DRAW.choice(labels) for _ in range(n)], [DRAW.choice(labels) for _ in range(n)])
    for n, labels in ((1, LABELS[:2]), (7, LABELS), (200, LABELS), (200, ["yes", "no"]))
] + [(["a", "a", "b"], ["a", "a", "a"]), (["a", "a"], ["a", "a"]), (["a", "b"], ["c", "c"])]


@pytest.mark.parametrize(("golds", "found"), SINGLE)
def test_single_labels(golds: list[str], found: list[str]) -> None:
    expected = {
        "accuracy": accuracy_score(golds, found),
        "macro_f1": f1_score(golds, found, average="macro", zero_division=0),
        "micro_f1": f1_score(golds, found, average="micro", zero_division=0),
        "mcc": matthews_corrcoef(golds, found) if len(set(golds) | set(found)) > 1 else 0.0,
    }
    scores = single_label_scores(golds, found)
    assert scores == pytest.approx({name: 100 * value for name, value in expected.items()})


@pytest.mark.parametrize("density", [0.0, 0.2, 0.9])
def test_several_labels(density: float) -> None:
    draw = np.random.default_rng(1)
    golds, found = draw.random((60, 4)) < density, draw.random((60, 4)) < 0.4
    sets = [[[LABELS[n] for n in np.flatnonzero(row)] for row in side] for side in (golds, found)]
    expected = {
        "accuracy": accuracy_score(golds, found),
        "macro_f1": f1_score(golds, found, average="macro", zero_division=0),
        "micro_f1": f1_score(golds, found, average="micro", zero_division=0),
    }
    scores = multi_label_scores(sets[0], sets[1], labels=LABELS)
    assert scores == pytest.approx({name: 100 * value for name, value in expected.items()})
