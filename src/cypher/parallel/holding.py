"""What each process of a plan holds of each parameter, worked out from shapes alone: models on the meta device do."""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from cypher.config import ParallelPlan
from cypher.config.parallel import V_SHAPED
from cypher.errors import ModelError
from cypher.layers.attention import FullAttention
from cypher.layers.embedding import Embedding
from cypher.layers.feed_forward import FeedForward, GatedFeedForward
from cypher.models.headed import HeadedModel
from cypher.models.model import Model


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


def parts_by_rank(headed: HeadedModel, plan: ParallelPlan) -> list[list[Part]]:
    """Parts of each process along the ``pp`` axis.

    Args:
        headed: The undivided model and its head.
        plan: Its ``tp``, ``pp`` and schedule.
    """
    cuts = _cuts(headed)
    blocks = blocks_by_rank(headed.model, plan)
    rank_of = {block: rank for rank, names in enumerate(blocks) for block in names}
    last = rank_of_head(plan)
    found: list[list[Part]] = [[] for _ in range(plan.pp)]
    for name, parameter in headed.named_parameters():
        shape = list(parameter.shape) or [1]
        dim = cuts.get(name)
        if dim is not None:
            shape[dim] = -(-shape[dim] // plan.tp)
        block = _block_of(name)
        part = Part(name=name, rows=shape[0], row=math.prod(shape[1:]), is_trained=parameter.requires_grad, block=block)
        for rank in {rank_of[block]} if block else _ranks_around(name, headed, rank_of, last=last):
            found[rank].append(part)
    return found


def blocks_by_rank(model: Model, plan: ParallelPlan) -> list[list[str]]:
    """Names of the blocks that each process along the ``pp`` axis runs."""
    names = [name for name, _ in model.blocks()]
    each, more = divmod(len(names), plan.stages)
    found: list[list[str]] = [[] for _ in range(plan.pp)]
    start = 0
    for stage in range(plan.stages):
        end = start + each + (stage < more)
        is_back = stage >= plan.pp and plan.schedule in V_SHAPED
        found[2 * plan.pp - 1 - stage if is_back else stage % plan.pp] += names[start:end]
        start = end
    return found


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


def _ranks_around(name: str, headed: HeadedModel, rank_of: dict[str, int], *, last: int) -> set[int]:
    """Who holds a parameter outside of blocks: what comes before them at the beginning, what comes after at the end."""
    model = headed.model
    if name.startswith("head."):
        return {last}
    children = [child for child, _ in model.named_children()]
    if children.index(name.split(".")[1]) > children.index("segments"):
        return {last}
    ranks = {0}
    if name == f"model.{_name_of(model, model.token_vectors())}":
        ranks |= {rank_of[f"{segment}.0"] for segment in list(model.segments)[1:]}
        if is_head_over_vocabulary(headed) and getattr(model, "output", None) is None:
            ranks.add(last)
    return ranks


def is_head_over_vocabulary(headed: HeadedModel) -> bool:
    """Whether the head predicts tokens."""
    try:
        return isinstance(headed.head, type(headed.model.language_head()))
    except ModelError:
        return False


def rank_of_head(plan: ParallelPlan) -> int:
    """Place along the ``pp`` axis of the last stage, which has the head."""
    return 0 if plan.schedule in V_SHAPED else plan.pp - 1


def _name_of(model: Model, wanted: object) -> str:
    return next(name for name, parameter in model.named_parameters() if parameter is wanted)


def _cuts(headed: HeadedModel) -> dict[str, int]:
    """Dim along which ``tp`` cuts a parameter, by its name."""
    found: dict[str, int] = {}
    for name, module in headed.named_modules():
        columns: Sequence[str] = ()
        rows: Sequence[str] = ()
        if isinstance(module, FullAttention):
            columns, rows = ("query", "key", "value"), ("output",)
        elif isinstance(module, GatedFeedForward):
            columns, rows = ("gate", "up"), ("down",)
        elif isinstance(module, FeedForward):
            columns, rows = ("up",), ("down",)
        elif (isinstance(module, Embedding) and name.endswith("token")) or name == "model.output":
            found[f"{name}.weight"] = 0
        for column in columns:
            found |= {f"{name}.{column}.weight": 0, f"{name}.{column}.bias": 0}
        for row in rows:
            found[f"{name}.{row}.weight"] = 1
    return found
