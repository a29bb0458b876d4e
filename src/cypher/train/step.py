"""One optimiser step over its micro-batches, by the one loss rule."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from cypher.data.batch import Batch
from cypher.train.optimiser import set_rate
from cypher.train.task import HeadedModel, Task


def train_step(
    model: HeadedModel,
    task: Task[Any, Any, Any],
    batches: Sequence[Batch],
    optimiser: torch.optim.Optimizer,
    *,
    rate: float,
    clip_norm: float,
) -> float:
    """Forward and backward over all micro-batches, clip, update.

    Each loss is a sum divided by its count over *all* micro-batches, so cutting a batch does not change the step.

    Args:
        model: In training mode.
        task: Gives counts before, losses after the forward.
        batches: The micro-batches of this step.
        optimiser: Its gradients are zero on entry and on exit.
        rate: Factor on the peak learning rates.
        clip_norm: Largest global L2 norm of the gradient; 0 = no clip.

    Returns:
        The step's loss, ``Σ weight · total / count``.
    """
    counts: Counter[str] = Counter()
    for batch in batches:
        counts.update(task.counts(batch))
    loss = 0.0
    for batch in batches:
        losses = task.step(model, batch)
        planned = task.counts(batch)
        assert {name: term.count for name, term in losses.items()} == dict(planned), "counts() and step() disagree"
        share = torch.stack([term.weight * term.total / counts[name] for name, term in losses.items()]).sum()
        share.backward()  # type: ignore[no-untyped-call]
        loss += share.item()
    if clip_norm:
        nn.utils.clip_grad_norm_([p for group in optimiser.param_groups for p in group["params"]], clip_norm)
    set_rate(optimiser, rate)
    optimiser.step()
    optimiser.zero_grad(set_to_none=True)
    return loss
