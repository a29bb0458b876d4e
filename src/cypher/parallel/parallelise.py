"""From a whole model to a divided one: the order in which techniques are applied, written once.

Before this the model has its weights, its adapters and what of it is frozen. Then

1. *stages*: what other processes run is taken away, so that nothing below is done for it;
2. *tensors*: matrices are cut, which the copies then divide further: the other way round each cut would gather first;
3. *activation checkpointing*: a block is run again as it is called here, gathering and all;
4. *copies*: DDP or FSDP2 around everything, because they exchange the gradients of what is finally there; in a
   pipeline without FSDP2 they are averaged when its schedule is through.

The optimiser comes last: it holds what is left of the parameters in this process.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import nn

from cypher.config import ParallelPlan
from cypher.models.headed import HeadedModel
from cypher.parallel.engine import Engine
from cypher.parallel.one_process import OneProcess
from cypher.parallel.pipeline import pipeline
from cypher.parallel.replicate import average, replicate
from cypher.parallel.shard import shard
from cypher.parallel.tensor import divide
from cypher.parallel.whole_engine import WholeEngine
from cypher.parallel.working import Working
from cypher.parallel.world import World


def parallelise(headed: HeadedModel, world: World | None = None) -> Engine:
    """Divide a model over the processes of a run, in place.

    Args:
        headed: With its weights, adapters and what is frozen; the same in every process.
        world: Its plan says how; ``None`` is this process alone.
    """
    world = world or World(plan=ParallelPlan())
    plan = world.plan
    headed.model.checkpoints_activations = plan.activation_checkpointing
    if plan.world == 1:
        headed.model.lay_out_frozen()
        return OneProcess(headed, world)
    before_the_clip: list[Callable[[], None]] = []
    averaged: dict[nn.Parameter, None] = {}  # each once, and be it in two stages of this process

    def cut_matrices(stretches: Sequence[range] | None = None) -> None:
        divided = divide(headed, world, stretches) if plan.tp > 1 else None
        if divided is not None:
            before_the_clip.append(divided.settle)
        if not plan.is_sharded:  # what is gathered anew each time is laid out in vain
            (divided or headed.model).lay_out_frozen()

    def copied(module: nn.Module, blocks: Sequence[nn.Module]) -> nn.Module:
        if plan.dp == 1:
            return module
        if not plan.is_sharded and plan.pp == 1:
            return replicate(module, world)
        # A pipeline's stages go through their backwards in pieces, some of them past the hooks that DDP waits for.
        averaged.update(dict.fromkeys(shard(module, blocks, world) if plan.is_sharded else module.parameters()))
        return module

    def settle() -> None:
        for part in before_the_clip:
            part()
        average(averaged, world)

    if plan.pp > 1:
        return pipeline(headed, world, cut_matrices=cut_matrices, copied=copied, settle_parts=settle)
    cut_matrices()
    working = copied(Working(headed), [block for _, block in headed.model.blocks()])
    return WholeEngine(working, headed, world, settle_parts=settle)
