"""What each process of a plan holds of each parameter, worked out from shapes alone: models on the meta device do."""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from cypher.config import ParallelPlan
from cypher.models.headed import HeadedModel
from cypher.models.model import Model
from cypher.parallel.exchange import share_of
from cypher.parallel.stages import cut, first_names, parts_of, stages_of
from cypher.parallel.tensor_plan import Cut

WIDE = 4
"""Bytes of a number in fp32, in which all that is trained is kept and sent: weights, gradients and both moments."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """One parameter, as one process of a ``tp`` group holds it; the first process, which holds most.

    Args:
        name: In the undivided model and head.
        rows: Of its first dim, over which copies divide it further.
        row: Numbers in each of them.
        is_trained: Whether it gets a gradient.
        block: That it belongs to; empty outside of blocks.
    """

    name: str
    rows: int
    row: int
    is_trained: bool
    block: str

    def numel(self, shards: int = 1) -> int:
        """Numbers held where so many copies divide its first dim; the first of them holds most."""
        return -(-self.rows // shards) * self.row

    @property
    def group(self) -> tuple[str, bool]:
        """Of the optimiser."""
        return (self.name.split(".", 1)[0], self.row > 1)


def parts_by_rank(headed: HeadedModel, plan: ParallelPlan, cuts: Mapping[str, Cut]) -> list[list[Part]]:
    """Parts of each process along the ``pp`` axis.

    Args:
        headed: The undivided model and its head.
        plan: Its ``tp``, ``pp`` and schedule.
        cuts: Of :func:`cypher.parallel.tensor_plan.cuts_of`, which depend on no plan.
    """
    found, names = [], first_names(headed)
    stretches = cut(len(list(headed.model.blocks())), plan.stages)
    for rank in range(plan.pp):
        needed = set().union(*(parts_of(headed, stretches[stage]) for stage in stages_of(plan, rank)))
        parts, counted = [], set[str]()
        for name, parameter in headed.named_parameters(remove_duplicate=False):
            if (plan.pp > 1 and not _is_in(name, needed)) or names[name] in counted:
                continue
            counted.add(names[name])
            shape = list(parameter.shape) or [1]
            dim = cuts[name].dim
            if dim is not None:
                _, shape[dim] = share_of(shape[dim], plan.tp, 0)
            parts.append(
                Part(
                    name=names[name],
                    rows=shape[0],
                    row=math.prod(shape[1:]),
                    is_trained=parameter.requires_grad,
                    block=_block_of(name),
                )
            )
        found.append(parts)
    return found


def blocks_by_rank(model: Model, plan: ParallelPlan) -> list[list[str]]:
    """Names of the blocks that each process along the ``pp`` axis runs."""
    names = [name for name, _ in model.blocks()]
    stretches = cut(len(names), plan.stages)
    return [
        [name for stage in stages_of(plan, rank) for name in names[stretches[stage].start : stretches[stage].stop]]
        for rank in range(plan.pp)
    ]


def fullest_optimiser(parts: Iterable[Part], copies: int) -> tuple[int, int]:
    """Numbers and parameters that the fullest copy updates under ``zero = 1``, which gives each parameter to one copy.

    The largest first, each to whoever has least: torch.distributed.optim.ZeroRedundancyOptimizer does it so.
    """
    groups: dict[tuple[str, bool], list[int]] = {}
    for part in parts:
        if part.is_trained:
            groups.setdefault(part.group, []).append(part.numel())
    held = [(0, copy, 0) for copy in range(copies)]
    for _, sizes in sorted(groups.items()):
        for size in sorted(sizes, reverse=True):
            numbers, copy, count = heapq.heappop(held)
            heapq.heappush(held, (numbers + size, copy, count + 1))
    numbers, _, count = max(held)
    return numbers, count


def _block_of(name: str) -> str:
    pieces = name.split(".")
    return f"{pieces[2]}.{pieces[3]}" if pieces[:2] == ["model", "segments"] else ""


def _is_in(name: str, modules: set[str]) -> bool:
    """Whether a parameter is inside of one of some modules, or is one of them."""
    while name:
        if name in modules:
            return True
        name = name.rpartition(".")[0]
    return False
