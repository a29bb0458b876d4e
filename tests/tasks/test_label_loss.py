"""Each loss equals its formula, written out term by term."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.utils.class_weight import compute_class_weight

from cypher.config import ClassifyConfig
from cypher.tasks.label_loss import class_weights, log_shares, multi_label_loss, single_label_loss

LOGITS = torch.tensor([[2.0, -1.0, 0.5], [0.1, 0.2, 0.3], [-4.0, 6.0, 1.0], [0.0, 0.0, -30.0]])
LABEL = torch.tensor([0, 2, 0, 2])
LABELS = torch.tensor([[1.0, 0, 0], [0, 1, 1], [0, 0, 0], [1, 1, 1]])
COUNTS = (50, 9, 1)


def test_without_options_it_is_cross_entropy() -> None:
    assert single_label_loss(LOGITS, LABEL) == pytest.approx(F.cross_entropy(LOGITS, LABEL, reduction="sum"))
    expected = F.binary_cross_entropy_with_logits(LOGITS, LABELS, reduction="sum")
    assert multi_label_loss(LOGITS, LABELS) == pytest.approx(expected)


def test_balanced_weights_are_those_of_scikit_learn() -> None:
    labels = np.repeat([0, 1, 2], COUNTS)
    expected = compute_class_weight("balanced", classes=np.array([0, 1, 2]), y=labels)
    found = class_weights(ClassifyConfig(class_weights="balanced"), COUNTS, 60)
    assert found.tolist() == pytest.approx(expected.tolist())
    # Over the training rows they have a mean of 1, so a sum divided by rows keeps its size.
    assert sum(n * weight for n, weight in zip(COUNTS, found.tolist(), strict=True)) / 60 == pytest.approx(1)


@pytest.mark.parametrize("beta", [0.0, 0.9, 0.999])
def test_effective_numbers(beta: float) -> None:
    config = ClassifyConfig(class_weights="effective_number", effective_number_beta=beta)
    inverse = [(1 - beta) / (1 - beta**n) for n in COUNTS]  # one over equation 2 of Cui et al.
    expected = [3 * value / sum(inverse) for value in inverse]
    assert class_weights(config, COUNTS, 60).tolist() == pytest.approx(expected)
    if beta == 0:
        assert expected == [1, 1, 1]


def test_weights_given_and_none() -> None:
    given = ClassifyConfig(labels=("a", "b", "c"), class_weights=(1.0, 2.0, 0.5))
    assert class_weights(given, (), 0).tolist() == [1.0, 2.0, 0.5]
    assert class_weights(ClassifyConfig(), COUNTS, 60) is None
    several = ClassifyConfig(multi_label=True, class_weights="balanced")
    assert class_weights(several, COUNTS, 60).tolist() == pytest.approx([10 / 50, 51 / 9, 59])


@pytest.mark.parametrize("gamma", [0.5, 2.0])
@pytest.mark.parametrize("weights", [None, torch.tensor([1.0, 3.0, 0.25])])
def test_focal_and_weighted_terms(gamma: float, weights: torch.Tensor | None) -> None:
    single = several = 0.0
    for row in range(len(LOGITS)):
        p = LOGITS[row].softmax(0)[LABEL[row]].item()
        single -= (1 if weights is None else weights[LABEL[row]].item()) * (1 - p) ** gamma * math.log(p)
        for label in range(3):
            q = torch.sigmoid(LOGITS[row, label].double()).item()
            is_there = LABELS[row, label].item() == 1
            truth = q if is_there else 1 - q
            factor = 1 if weights is None or not is_there else weights[label].item()
            several -= factor * (1 - truth) ** gamma * math.log(truth)
    assert single_label_loss(LOGITS, LABEL, weights=weights, gamma=gamma).item() == pytest.approx(single, rel=1e-4)
    assert multi_label_loss(LOGITS, LABELS, weights=weights, gamma=gamma).item() == pytest.approx(several, rel=1e-4)


def test_adjusted_logits() -> None:
    strength, shares = 1.5, [n / 60 for n in COUNTS]
    expected = 0.0
    for row in range(len(LOGITS)):
        y = int(LABEL[row])
        # Equation 10 of Menon et al.: log(1 + sum over other labels of (share / share of y)^strength e^(f - f_y))
        others = [
            (shares[label] / shares[y]) ** strength * math.exp(LOGITS[row, label] - LOGITS[row, y])
            for label in range(3)
            if label != y
        ]
        expected += math.log(1 + sum(others))
    found = single_label_loss(LOGITS, LABEL, offsets=strength * log_shares(COUNTS))
    assert found.item() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_gradients_of_sure_rows_are_numbers(gamma: float) -> None:
    logits = torch.tensor([[200.0, -200.0], [-200.0, 200.0]], requires_grad=True)
    (single_label_loss(logits, torch.tensor([0, 0]), gamma=gamma)
     + multi_label_loss(logits, torch.tensor([[1.0, 0], [1, 0]]), gamma=gamma)).backward()  # fmt: skip
    assert torch.isfinite(logits.grad).all()
