"""Copies of a model that learn from a share of the batch each: DistributedDataParallel, and ZeRO's first stage.

ZeRO-1 (Rajbhandari et al. 2019, arXiv 1910.02054, section 5.1) divides the optimiser's state over the copies: each
updates some of the parameters and sends them to the others.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.optim import ZeroRedundancyOptimizer
from torch.nn.parallel import DistributedDataParallel

from cypher.parallel.world import World

# Numbers that are sent in one piece, more if one gradient has more: each message costs, and so does room for it.
_TOGETHER = 8 * 1024 * 1024


def replicate(module: nn.Module, world: World) -> nn.Module:
    """Keep the copies of a module equal: gradients are averaged over them while the backward is still at work.

    Args:
        module: With plain parameters, of which some may be unused in a step; if none is trained, there is nothing to
            keep equal, and it is returned as it is.
        world: The copies lie along its ``replicate`` axis.
    """
    if not any(parameter.requires_grad for parameter in module.parameters()):
        return module
    # Which parts a step leaves out is drawn anew each time; a copy that waited for their gradients would wait forever.
    return DistributedDataParallel(
        module, process_group=world.group("replicate"), gradient_as_bucket_view=True, find_unused_parameters=True
    )


@torch.no_grad()
def average(parameters: Iterable[nn.Parameter], world: World) -> None:
    """Average gradients over the copies, once all of a step's are there.

    Args:
        parameters: Whole in every copy; in the same order in all, and used in a step by all or by none.
        world: The copies lie along its ``replicate`` and ``shard`` axes.
    """
    buckets: dict[torch.dtype, list[list[Tensor]]] = {}
    for parameter in parameters:
        if parameter.grad is not None:
            alike = buckets.setdefault(parameter.grad.dtype, [[]])
            if sum(gradient.numel() for gradient in alike[-1]) >= _TOGETHER:
                alike.append([])
            alike[-1].append(parameter.grad)
    for together in (bucket for alike in buckets.values() for bucket in alike):
        flat = torch.cat([gradient.flatten() for gradient in together])
        for axis in ("replicate", "shard"):
            dist.all_reduce(flat, group=world.group(axis))
        flat /= world.plan.dp
        pieces = torch.split(flat, [gradient.numel() for gradient in together])
        for gradient, piece in zip(together, pieces, strict=True):
            gradient.copy_(piece.view_as(gradient))


def divided_optimiser(groups: list[dict[str, Any]], world: World) -> torch.optim.Optimizer:
    """AdamW whose moments are divided over the copies; with nothing that is trained there is nothing to divide.

    Args:
        groups: As of ``torch.optim.AdamW``, the same in every copy.
        world: The copies lie along its ``replicate`` axis.
    """
    if not any(group["params"] for group in groups):
        return torch.optim.AdamW(groups, fused=True)
    return ZeroRedundancyOptimizer(
        groups, optimizer_class=torch.optim.AdamW, process_group=world.group("replicate"), fused=True
    )
