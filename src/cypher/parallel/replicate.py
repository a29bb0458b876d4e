"""Copies of a model that learn from a share of the batch each: DistributedDataParallel, and ZeRO's first stage.

ZeRO-1 (Rajbhandari et al. 2019, arXiv 1910.02054, section 5.1) divides the optimiser's state over the copies: each
updates some of the parameters and sends them to the others.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.distributed.optim import ZeroRedundancyOptimizer
from torch.nn.parallel import DistributedDataParallel

from cypher.parallel.world import World


def replicate(module: nn.Module, world: World) -> nn.Module:
    """Keep the copies of a module equal: gradients are averaged over them while the backward is still at work.

    Args:
        module: With plain parameters, of which some may be unused in a step.
        world: The copies lie along its ``replicate`` axis.
    """
    # Which parts a step leaves out is drawn anew each time; a copy that waited for their gradients would wait forever.
    return DistributedDataParallel(
        module, process_group=world.group("replicate"), gradient_as_bucket_view=True, find_unused_parameters=True
    )


def divided_optimiser(groups: list[dict[str, Any]], world: World) -> ZeroRedundancyOptimizer:
    """AdamW whose moments are divided over the copies.

    Args:
        groups: As of ``torch.optim.AdamW``, the same in every copy.
        world: The copies lie along its ``replicate`` axis.
    """
    return ZeroRedundancyOptimizer(
        groups, optimizer_class=torch.optim.AdamW, process_group=world.group("replicate"), fused=True
    )
