"""All plans for a number of processes: what each holds, sends and takes; those that fit, the fastest first."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import get_args

from cypher.config import ParallelPlan
from cypher.config.parallel import Schedule, Zero
from cypher.errors import ConfigError
from cypher.models.headed import HeadedModel
from cypher.models.model import LanguageHead
from cypher.parallel import tensor_plan
from cypher.parallel.activations import Workload
from cypher.parallel.cost import Machine, Wire, bubble, operations, step_seconds, wire
from cypher.parallel.explain import Explainer, Held
from cypher.parallel.stages import apart_refusals
from cypher.parallel.validate import batch_refusals, pipeline_refusals

FACTORS = (2, 4, 8)
"""Micro-batches of the pipelines that are looked at, by processes of the pipeline."""


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """What one plan would need.

    Args:
        plan: The plan.
        held: Bytes of its fullest process, by kind.
        bubble: Share of a step in which a process of the pipeline waits.
        wire: Bytes that its busiest process sends in a step.
        step_seconds: Of a step, by :data:`cypher.parallel.cost.ASSUMPTIONS`.
        fits: Whether the fullest process has memory enough.
    """

    plan: ParallelPlan
    held: Held
    bubble: float
    wire: Wire
    step_seconds: float
    fits: bool


def search(headed: HeadedModel, world: int, work: Workload, machine: Machine) -> list[Estimate]:
    """One estimate for each combination of dp, tp, pp and zero that can work; of its variants the fastest that fits.

    Args:
        headed: The undivided model and its head; on the meta device it takes no memory.
        world: Number of processes.
        work: What a step is to work on.
        machine: What each process runs on.

    Returns:
        Those that fit by their step's time, then the others by what they need.

    Raises:
        ConfigError: No plan can work for so many processes.
    """
    found: dict[tuple[int, ...], Estimate] = {}
    explainer = Explainer(headed, work)
    for plan in possible_plans(headed, world, work):
        estimate = _estimate(plan, explainer, work, machine)
        degrees = (plan.dp, plan.tp, plan.pp, plan.zero)
        if degrees not in found or _order(estimate) < _order(found[degrees]):
            found[degrees] = estimate
    if not found:
        raise ConfigError(
            f"no plan for {world} processes divides this model and a batch of {work.batch_size}",
            change="choose another --world or --batch-size",
        )
    return sorted(found.values(), key=_order)


def possible_plans(headed: HeadedModel, world: int, work: Workload) -> Iterator[ParallelPlan]:
    """Every plan for a number of processes that can start, but for offload."""
    n_blocks = len(list(headed.model.blocks()))
    apart: dict[tuple[int, int, bool, bool], bool] = {}
    for tp in _divisors(world):
        if tensor_plan.refusals(headed.model, ParallelPlan(tp=tp)):
            continue
        for pp in _divisors(world // tp):
            for values in _variants(dp=world // tp // pp, tp=tp, pp=pp):
                try:
                    plan = ParallelPlan.model_validate(values)
                except ValueError:
                    continue  # what a plan says of itself, such as zero = 1 beside tp
                refused = (
                    *pipeline_refusals(plan, n_blocks),
                    *batch_refusals(plan, work.batch_size, work.accumulation),
                )
                if refused:
                    continue
                layout = (plan.pp, plan.stages_per_rank, plan.is_v_shaped, plan.is_sharded)
                if layout not in apart:
                    apart[layout] = not any(apart_refusals(headed, plan))
                if apart[layout]:
                    yield plan


def _variants(*, dp: int, tp: int, pp: int) -> Iterator[dict[str, object]]:
    zeros: tuple[Zero, ...] = get_args(Zero) if dp > 1 else (0,)
    if pp > 1:
        zeros = tuple(zero for zero in zeros if zero < 3)  # which a pipeline runs as 2
    schedules: tuple[Schedule, ...] = get_args(Schedule) if pp > 1 else ("1f1b",)
    counts = [factor * pp for factor in FACTORS] if pp > 1 else [None]
    for zero in zeros:
        for replicas in _divisors(dp)[:-1] if zero >= 2 else [1]:
            for schedule in schedules:
                for microbatches in counts:
                    for sequence_parallel in (False, True) if tp > 1 else (False,):
                        for activation_checkpointing in (False, True):
                            yield {
                                "dp": dp, "tp": tp, "pp": pp, "zero": zero, "replicas": replicas, "schedule": schedule,
                                "microbatches": microbatches, "sequence_parallel": sequence_parallel,
                                "activation_checkpointing": activation_checkpointing,
                            }  # fmt: skip


def _estimate(plan: ParallelPlan, explainer: Explainer, work: Workload, machine: Machine) -> Estimate:
    headed = explainer.headed
    held = explainer.explain(plan).worst
    parts, blocks = explainer.parts(plan), explainer.blocks(plan)
    vocabulary = len(headed.model.token_vectors()) if isinstance(headed.head, LanguageHead) else 0
    segments, last = len(headed.model.segments), plan.last_place
    numbers = max(
        operations(plan, blocks[rank], work, vocabulary=vocabulary if rank == last else 0) for rank in range(plan.pp)
    )
    sent = max(
        (wire(plan, parts[rank], blocks[rank], work, segments=segments, rank=rank) for rank in range(plan.pp)),
        key=lambda each: each.copies + each.tensors + each.stages,
    )
    return Estimate(
        plan=plan,
        held=held,
        bubble=bubble(plan),
        wire=sent,
        step_seconds=step_seconds(plan, numbers, sent, machine),
        fits=held.peak <= machine.memory,
    )


def _order(estimate: Estimate) -> tuple[bool, float, float]:
    if estimate.fits:
        return (False, estimate.step_seconds, estimate.held.peak)
    return (True, estimate.held.peak, estimate.step_seconds)


def _divisors(number: int) -> list[int]:
    return [divisor for divisor in range(1, number + 1) if number % divisor == 0]
