"""What a label's error costs: cross-entropy with weights, focus and adjusted logits, as sums over rows."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from cypher.config import ClassifyConfig


def class_weights(config: ClassifyConfig, counts: Sequence[int], n_rows: int) -> Tensor | None:
    """Factor of each label's loss; ``None`` weighs all alike.

    Args:
        config: Which weights.
        counts: Training rows of each label; one that never occurs counts as one row.
        n_rows: Training rows.

    Returns:
        ``(labels,)`` fp32.

    Example:
        >>> class_weights(ClassifyConfig(class_weights="balanced"), [30, 10], 40).tolist()
        [0.6666666865348816, 2.0]
    """
    if isinstance(config.class_weights, tuple):
        return torch.tensor(config.class_weights, dtype=torch.float32)
    if config.class_weights == "none":
        return None
    rows = torch.tensor(counts, dtype=torch.float64).clamp(min=1)
    if config.class_weights == "balanced":
        weights = (n_rows - rows) / rows if config.multi_label else n_rows / (len(counts) * rows)
    else:
        beta = config.effective_number_beta
        weights = (1 - beta) / (1 - beta**rows)
        weights = weights * len(counts) / weights.sum()
    return weights.float()


def log_shares(counts: Sequence[int]) -> Tensor:
    """Logarithm of each label's share of the rows, ``(labels,)`` fp32; one that never occurs counts as one row."""
    rows = torch.tensor(counts, dtype=torch.float64).clamp(min=1)
    return (rows / rows.sum()).log().float()


def single_label_loss(
    logits: Tensor, label: Tensor, *, weights: Tensor | None = None, gamma: float = 0.0, offsets: Tensor | None = None
) -> Tensor:
    """``Σ w_y (1 - p_y)^γ (-log p_y)`` over rows, where ``p = softmax(logits + offsets)``.

    Args:
        logits: ``(rows, labels)`` fp32.
        label: ``(rows,)`` int64.
        weights: ``(labels,)``.
        gamma: Of the focal loss.
        offsets: ``(labels,)``, the adjustment of logits times its strength.
    """
    log_probabilities = (logits if offsets is None else logits + offsets).log_softmax(-1)
    terms = log_probabilities.gather(1, label.unsqueeze(1)).squeeze(1)
    if gamma:
        terms = terms * (1 - terms.exp()).clamp(min=1e-9) ** gamma
    if weights is not None:
        terms = terms * weights[label]
    return -terms.sum()


def multi_label_loss(logits: Tensor, labels: Tensor, *, weights: Tensor | None = None, gamma: float = 0.0) -> Tensor:
    """``Σ w (1 - p)^γ (-log p)`` over rows and labels, ``p`` the probability of what is true of the label.

    Args:
        logits: ``(rows, labels)`` fp32.
        labels: ``(rows, labels)`` fp32, 1 where a row has the label.
        weights: ``(labels,)``, of terms whose label is there; the others weigh 1.
        gamma: Of the focal loss.
    """
    log_probabilities = F.logsigmoid(torch.where(labels > 0, logits, -logits))
    terms = log_probabilities
    if gamma:
        terms = terms * (1 - terms.exp()).clamp(min=1e-9) ** gamma
    if weights is not None:
        terms = terms * torch.where(labels > 0, weights, 1.0)
    return -terms.sum()
