"""How long a step of a plan would take, from stated assumptions: products, bubbles, and bytes over the wire.

The figures rank plans; they foresee no machine. :data:`ASSUMPTIONS` says what they rest on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cypher.config import ParallelPlan
from cypher.parallel.activations import BlockProfile, Workload
from cypher.parallel.holding import WIDE, Part

UTILISATION = 0.4
"""Share of the peak that matrix products reach; Korthikanti et al. 2022, arXiv 2205.05198, table 5: 0.42 to 0.56."""

ASSUMPTIONS = (
    "every process has a link of the given bandwidth of its own, each way, and a message costs no time to begin",
    "collectives go round a ring: an all-reduce sends 2 (n - 1) / n of its bytes, a gather or reduce-scatter half",
    f"matrix products reach {UTILISATION:.0%} of the peak, and everything else takes no time",
    "a backward takes twice a forward; its halves for inputs and weights, and a forward, take equally long",
    "traffic between copies hides behind the work, as far as that lasts; traffic of tp and pp hides behind nothing",
    "every row has the full length; the head of a task with labels, and the reading of rows, are not counted",
)


@dataclass(frozen=True, kw_only=True)
class Machine:
    """One of the equal processes.

    Args:
        memory: Bytes.
        link: Bytes a second to the others, each way.
        peak: Floating-point operations a second.
    """

    memory: float
    link: float = 100e9
    peak: float = 312e12  # of an A100 in bf16, by its data sheet


@dataclass(frozen=True, kw_only=True)
class Wire:
    """Bytes that the busiest process sends in a step.

    Args:
        copies: To other copies: gradients, and under ``zero`` weights.
        tensors: Over ``tp``: hidden states.
        stages: Over ``pp``: hidden states and their gradients.
    """

    copies: int = 0
    tensors: int = 0
    stages: int = 0


def bubble(plan: ParallelPlan) -> float:
    """Share of a step in which a process of the pipeline waits, where all stages take equally long.

    With p processes, m micro-batches and v stretches a process, and halves of the backward as long as a forward:

    - gpipe, 1f1b: (p - 1) / (m + p - 1), Huang et al. 2018, arXiv 1811.06965, section 2.3;
    - interleaved, looped_bfs: (p - 1) / (v m + p - 1), Narayanan et al. 2021, arXiv 2104.04473, section 2.2;
      Lamy-Poirier 2022, arXiv 2211.05953, section 4;
    - interleaved_zero_bubble: (p - 1) / (3 v m + p - 1), as ZB-H1 of Qi et al. 2023, arXiv 2401.10241, table 1, whose
      only wait is that of a forward a process;
    - zbv_zero_bubble: 0, Qi et al. 2024, arXiv 2405.15362, section 3;
    - dualpipe_v: (p - 1) / (3 m + p - 1), from its bubble in DeepSeek-AI 2024, arXiv 2412.19437, table 2.

    Example:
        >>> bubble(ParallelPlan(pp=4, microbatches=8))
        0.2727272727272727
    """
    waits, count = plan.pp - 1, plan.pipeline_microbatches
    if not waits or plan.schedule == "zbv_zero_bubble":
        return 0.0
    forwards = {"interleaved": 2, "looped_bfs": 2, "interleaved_zero_bubble": 6, "dualpipe_v": 3}.get(plan.schedule, 1)
    return waits / (forwards * count + waits)


def wire(
    plan: ParallelPlan,
    parts: Sequence[Part],
    blocks: Sequence[BlockProfile],
    work: Workload,
    *,
    segments: int,
    rank: int,
) -> Wire:
    """Bytes that one process sends in a step.

    Args:
        plan: How the model is divided.
        parts: That the process holds.
        blocks: That it runs.
        work: What it works on.
        segments: Of the model; behind the first, what it made travels along.
        rank: Place on the ``pp`` axis.
    """
    hidden = work.tokens(plan) * work.micro_batches(plan) * (blocks[0].width if blocks else 0) * work.number
    passes = 3 if plan.activation_checkpointing else 2  # forward, backward, and the forward that is done again
    # The table that a head or an embedding divides is summed once, at one end or the other.
    ends = 2 if rank in (0, plan.pp - 1) else 0
    sums = sum(block.sums for block in blocks) * passes + ends
    sends = 2 * plan.stages_per_rank if plan.pp > 1 else 0
    if plan.pp > 1 and rank in (0, plan.pp - 1):
        sends -= 1
    return Wire(
        copies=round(_between_copies(plan, parts, work)),
        tensors=round(2 * (plan.tp - 1) / plan.tp * hidden * sums),
        stages=hidden * sends * segments,
    )


def _between_copies(plan: ParallelPlan, parts: Sequence[Part], work: Workload) -> float:
    dp, shards = plan.dp, plan.shards
    if dp == 1:
        return 0.0
    # What is divided is exchanged in each micro-batch, by a pipeline when its schedule is through.
    times = work.accumulation
    gradients = sum(part.numel() for part in parts if part.is_trained) * WIDE
    reduced = 2 * (dp - 1) / dp * gradients
    if plan.zero == 0:
        return reduced * (times if plan.tp > 1 else 1)
    if plan.zero == 1:
        return reduced + (dp - 1) / dp * gradients  # each copy sends what it has updated
    again = 2 if plan.zero == 3 and plan.pp == 1 else 1  # blocks are gathered for the backward, too
    gathered = sum(
        part.numel() * (WIDE if part.is_trained else work.number) * (again if part.block else 1) for part in parts
    )
    between_groups = 2 * (plan.replicas - 1) / plan.replicas * gradients / shards
    return ((shards - 1) / shards * (gathered + gradients) + between_groups) * times


def operations(plan: ParallelPlan, blocks: Sequence[BlockProfile], work: Workload, *, vocabulary: int = 0) -> float:
    """Floating-point operations of one process in a step: two for each number of a matrix and token, each way.

    Narayanan et al. 2021, arXiv 2104.04473, appendix; frozen matrices need no gradient of their own.

    Args:
        plan: How the model is divided.
        blocks: That the process runs.
        work: What it works on.
        vocabulary: Tokens that a head in this process predicts; 0 where there is none.
    """
    forward, backward = 0.0, 0.0
    for block in blocks:
        attention = 4 * block.attention_width * work.sequence_length
        forward += 2 * (block.trained + block.frozen) + attention
        backward += 4 * block.trained + 2 * block.frozen + 2 * attention
    if plan.activation_checkpointing:
        backward += forward
    head = 6 * vocabulary * blocks[0].width if blocks else 0
    return (forward + backward + head) / plan.tp * (work.batch_size / plan.dp) * work.sequence_length


def step_seconds(plan: ParallelPlan, numbers: float, sent: Wire, machine: Machine) -> float:
    """Seconds of a step by :data:`ASSUMPTIONS`.

    Args:
        plan: How the model is divided.
        numbers: Floating-point operations of the busiest process.
        sent: Bytes of the busiest process.
        machine: What it runs on.
    """
    working = numbers / (machine.peak * UTILISATION) / (1 - bubble(plan))
    return max(working, sent.copies / machine.link) + (sent.tensors + sent.stages) / machine.link
