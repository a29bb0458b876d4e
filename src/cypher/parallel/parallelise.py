"""From a whole model to a divided one: the order in which techniques are applied, written once.

Before this the model has its weights, its adapters and what of it is frozen. Then

1. *stages*: what other processes run is taken away, so that nothing below is done for it;
2. *tensors*: matrices are cut, which the copies then divide further: the other way round each cut would gather first;
3. *activation checkpointing*: a block is run again as it is called here, gathering and all;
4. *copies*: DDP or FSDP2 around everything, because they exchange the gradients of what is finally there.

The optimiser comes last: it holds what is left of the parameters in this process.
"""

from __future__ import annotations

from cypher.config import ParallelPlan
from cypher.errors import ConfigError
from cypher.models.headed import HeadedModel
from cypher.parallel.engine import Engine
from cypher.parallel.one_process import OneProcess
from cypher.parallel.replicate import replicate
from cypher.parallel.shard import average, shard
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
    if plan.pp > 1:
        raise ConfigError(f"the plan {plan}", needed="pp = 1: stages are not divided yet")
    headed.model.checkpoints_activations = plan.activation_checkpointing
    if plan.world == 1:
        headed.model.lay_out_frozen()
        return OneProcess(headed, world)
    divided = divide(headed, world) if plan.tp > 1 else None
    working = Working(headed)
    if plan.zero >= 2 or (plan.tp > 1 and plan.dp > 1):
        # DDP knows no divided matrices; copies under tensor parallelism are shards of size 1.
        whole = shard(working, [block for _, block in headed.model.blocks()], world)

        def settle() -> None:
            average(whole, world)
            if divided is not None:
                divided.settle()

        return WholeEngine(working, headed, world, settle_parts=settle)
    if divided is None:
        headed.model.lay_out_frozen()
    else:
        divided.lay_out_frozen()
    if plan.dp > 1:
        return WholeEngine(replicate(working, world), headed, world)
    return WholeEngine(working, headed, world, settle_parts=None if divided is None else divided.settle)
