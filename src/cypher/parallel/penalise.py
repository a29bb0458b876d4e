"""Penalties on parameters alone, once a step, whatever is divided."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn
from torch.distributed.tensor import DTensor

from cypher.layers.penalty import penalty_of


def penalise(modules: Iterable[nn.Module]) -> float:
    """Add the penalties' gradients to those of the losses, which are summed over processes by now.

    Not by ``backward``: the hooks with which DDP sums gradients would take them for those of another micro-batch.

    Args:
        modules: Of this process.

    Returns:
        The penalties' sum.
    """
    total = 0.0
    for module in modules:
        penalty = penalty_of(module)
        if penalty is None:
            continue
        trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
        for parameter, gradient in zip(trained, torch.autograd.grad(penalty, trained, allow_unused=True), strict=True):
            if gradient is not None:
                parameter.grad = gradient if parameter.grad is None else parameter.grad + gradient
        value = penalty.detach()
        total += float(value.full_tensor() if isinstance(value, DTensor) else value)
    return total
