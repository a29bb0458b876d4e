"""Parameters, gradients and optimiser state divided over the copies: FSDP2 (Zhao et al. 2023, arXiv 2304.11277).

- ``zero = 3`` (Rajbhandari et al. 2019, arXiv 1910.02054, section 5.3): a block's parameters are gathered when it
  is run and given back behind it, forward and backward.
- ``zero = 2``: they stay whole from the forward to the backward of a step and are divided between steps. DeepSpeed's
  second stage keeps them whole always; what is held between steps is less here, the peak within a step the same.
- ``replicas``: groups of copies that divide within themselves and average over each other (hybrid sharding).

A parameter is gathered with the one block that it belongs to. What several blocks share, or is read outside of any
forward, stays whole: attached parts alone are such, and small.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import CPUOffloadPolicy, FSDPModule, OffloadPolicy, fully_shard

from cypher.layers.penalty import Penalised
from cypher.parallel.world import World


def shard(module: nn.Module, blocks: Sequence[nn.Module], world: World) -> list[nn.Parameter]:
    """Divide a module's parameters over the copies, in place.

    Args:
        module: The outermost one, in whose forward everything happens; gathers what no block does.
        blocks: Inside of it; each is gathered by itself.
        world: The copies lie along its ``replicate`` and ``shard`` axes.

    Returns:
        Parameters that stay whole; :func:`cypher.parallel.replicate.average` their gradients once a step.
    """
    plan = world.plan
    # A pipeline's micro-batches would each gather anew, so there parameters stay for all of a step.
    reshards = plan.zero == 3 and plan.pp == 1
    policy: OffloadPolicy = CPUOffloadPolicy(pin_memory=False) if plan.offload else OffloadPolicy()
    whole = _left_whole(module, blocks)
    ignored = set(whole)
    for block in blocks:
        fully_shard(
            block, mesh=_mesh(world), reshard_after_forward=reshards, offload_policy=policy, ignored_params=ignored
        )
    fully_shard(module, mesh=_mesh(world), reshard_after_forward=False, offload_policy=policy, ignored_params=ignored)
    return whole


@contextmanager
def divided_again(modules: Iterable[nn.Module]) -> Iterator[None]:
    """Divide again, after the block, what forwards in it have gathered: otherwise it stays whole until a backward.

    Args:
        modules: Given to :func:`shard`; others are left alone.
    """
    try:
        yield
    finally:
        for module in modules:
            for part in module.modules():
                if isinstance(part, FSDPModule):
                    part.reshard()


def _left_whole(module: nn.Module, blocks: Sequence[nn.Module]) -> list[nn.Parameter]:
    counts = Counter(parameter for block in blocks for parameter in block.parameters())
    penalised = {
        parameter for part in module.modules() if isinstance(part, Penalised) for parameter in part.parameters()
    }
    return [parameter for parameter in module.parameters() if counts[parameter] > 1 or parameter in penalised]


def _mesh(world: World) -> DeviceMesh:
    """One dim to divide over, or before it one to average over; copies that divide nothing are shards of size 1."""
    assert world.mesh is not None, "one process divides nothing"
    is_flat = world.plan.shards == world.plan.dp
    return world.mesh["shard"] if is_flat else world.mesh["replicate", "shard"]
