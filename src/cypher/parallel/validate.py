"""What cannot work is refused before anything is started, with the arithmetic.

What is wrong with a plan by itself :class:`cypher.config.ParallelPlan` says; here it meets a model, a batch and a task.
"""

from __future__ import annotations

from collections.abc import Iterator

from cypher.config import ParallelPlan
from cypher.errors import ConfigError
from cypher.models.model import Model
from cypher.parallel import tensor_plan


def validate(
    plan: ParallelPlan,
    model: Model,
    *,
    batch_size: int,
    accumulation: int = 1,
    whole_model: bool = False,
    whole_batch: bool = False,
) -> None:
    """Refuse a plan that cannot work; arguments as in :func:`refusals`.

    Raises:
        ConfigError: The first reason.

    Example:
        >>> from cypher.models.sizes import preset_model
        >>> try:
        ...     validate(ParallelPlan(tp=3), preset_model("bert-large"), batch_size=8)
        ... except ConfigError as error:
        ...     print(error)
        n_heads = 16 with tp = 3: needs a number that 3 divides
    """
    found = refusals(
        plan, model, batch_size=batch_size, accumulation=accumulation, whole_model=whole_model, whole_batch=whole_batch
    )
    for refusal in found:
        raise refusal


def refusals(
    plan: ParallelPlan,
    model: Model,
    *,
    batch_size: int,
    accumulation: int = 1,
    whole_model: bool = False,
    whole_batch: bool = False,
) -> list[ConfigError]:
    """Every reason why a plan cannot work with a model, a batch and a task.

    What depends on the head as well :func:`cypher.parallel.stages.apart_refusals` says.

    Args:
        plan: Possible by itself.
        model: Undivided, with its adapters; on any device.
        batch_size: Rows of a step, over all copies.
        accumulation: Micro-batches that each copy's share of a step is cut into.
        whole_model: Whether the task's step needs the model in one piece.
        whole_batch: Whether the task compares the rows of a batch with each other.
    """
    return [
        *batch_refusals(plan, batch_size, accumulation, whole_batch=whole_batch),
        *tensor_plan.refusals(model, plan),
        *pipeline_refusals(plan, len(list(model.blocks())), whole_model=whole_model),
    ]


def batch_refusals(
    plan: ParallelPlan, batch_size: int, accumulation: int = 1, *, whole_batch: bool = False
) -> Iterator[ConfigError]:
    """Whether a step's rows can be cut into equal parts; arguments as in :func:`refusals`."""
    parts = plan.dp * plan.pipeline_microbatches * accumulation
    if plan.world > 1 and batch_size % parts:
        pieces = [f"dp {plan.dp}"]
        pieces += [f"{plan.pipeline_microbatches} micro-batches"] if plan.pp > 1 else []
        pieces += [f"accumulation {accumulation}"] if accumulation > 1 else []
        yield ConfigError(
            f"train.batch_size = {batch_size} with {' x '.join(pieces)}",
            needed=f"a multiple of {parts}",
            change=f"set train.batch_size to {-(-batch_size // parts) * parts}",
        )
    if whole_batch and (parts := plan.dp * plan.pipeline_microbatches) > 1:
        yield ConfigError(
            f"a task that compares the rows of a batch with each other, cut into {parts} parts ({plan})",
            needed="the batch in one piece: cut, each row would have fewer others",
            change="set parallel.dp and parallel.pp to 1",
        )


def pipeline_refusals(plan: ParallelPlan, n_blocks: int, *, whole_model: bool = False) -> Iterator[ConfigError]:
    """Whether there are blocks for every stage, and micro-batches for the schedule.

    Args:
        plan: As in :func:`refusals`.
        n_blocks: Of the model, all segments together.
        whole_model: As in :func:`refusals`.
    """
    if plan.pp == 1:
        return
    count = plan.pipeline_microbatches
    if whole_model:
        yield ConfigError(
            f"a task whose step needs the whole model, with pp = {plan.pp}",
            needed="pp = 1: no process has all of it",
            change="set parallel.pp to 1 and divide with dp, zero or tp",
        )
    if n_blocks < plan.stages:
        yield ConfigError(
            f"{n_blocks} blocks with pp = {plan.pp} and {plan.stages_per_rank} stages a process",
            needed=f"a block for each of {plan.stages} stages",
            change=f"set parallel.pp to {n_blocks // plan.stages_per_rank or 1} or less",
        )
    # torch.distributed.pipelining.schedules asks for these when it is made.
    if plan.schedule in ("1f1b", "dualpipe_v") and count < plan.stages:
        yield ConfigError(
            f"parallel.microbatches = {count} with pp = {plan.pp} and schedule = {plan.schedule}",
            needed=f"one for each of {plan.stages} stages",
            change=f"set parallel.microbatches to {plan.stages} or more",
        )
    rounds = max(1, count // plan.pp)
    if plan.schedule in ("interleaved", "interleaved_zero_bubble") and count % rounds:
        yield ConfigError(
            f"parallel.microbatches = {count} with pp = {plan.pp} and schedule = {plan.schedule}",
            needed=f"a multiple of its {rounds} rounds",
            change=f"set parallel.microbatches to {rounds * plan.pp}",
        )
