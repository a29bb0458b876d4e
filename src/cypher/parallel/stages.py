"""Which blocks run where, what else a stage needs, and what passes between stages.

Every process begins with the whole model and keeps its stages' share: blocks of their stretches, what a segment needs
where it begins and ends, and behind the last block the rest. What a process does not keep is :class:`Absent`, so that
all parameters have the names of the undivided model.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cypher.config import ParallelPlan
from cypher.data.batch import Inputs
from cypher.errors import ConfigError
from cypher.layers.sites import EmbeddingSite
from cypher.models.headed import HeadedModel
from cypher.models.model import LanguageHead, Model
from cypher.models.stretch import Carried
from cypher.parallel.relay import Absent, Relayed


def cut(n_blocks: int, stages: int) -> list[range]:
    """Divide blocks, in forward order, over stages of like size.

    The last stage also has the head and the first the embeddings, so what does not divide evenly goes between them.

    Args:
        n_blocks: At least one a stage.
        stages: How many.

    Raises:
        ConfigError: There are more stages than blocks.

    Example:
        >>> cut(6, 4)
        [range(0, 1), range(1, 3), range(3, 5), range(5, 6)]
    """
    if n_blocks < stages:
        raise ConfigError(
            f"{stages} stages of {n_blocks} blocks",
            needed="a block a stage",
            change="lower pp, or take another schedule",
        )
    size, extra = divmod(n_blocks, stages)
    first = (stages - extra) // 2
    sizes = [size + (first <= stage < first + extra) for stage in range(stages)]
    starts = [sum(sizes[:stage]) for stage in range(stages + 1)]
    return [range(start, end) for start, end in pairwise(starts)]


def stages_of(plan: ParallelPlan, rank: int) -> list[int]:
    """The stages of one process of a pipeline.

    Args:
        plan: Its schedule says how they are laid.
        rank: Place on the ``pp`` axis.

    Example:
        >>> stages_of(ParallelPlan.parse("pp=2,schedule=interleaved"), 1)
        [1, 3]
        >>> stages_of(ParallelPlan.parse("pp=2,schedule=dualpipe_v"), 1)
        [1, 2]
    """
    if plan.stages_per_rank == 1:
        return [rank]
    return [rank, plan.stages - 1 - rank if plan.is_v_shaped else plan.pp + rank]


def parts_of(headed: HeadedModel, stretch: range) -> Counter[str]:
    """Names, in the headed model, of the modules that one stage needs, and how often it goes through each.

    Args:
        headed: With all of its modules.
        stretch: Of blocks.
    """
    model = headed.model
    names = [name for name, _ in model.blocks()]
    needed = Counter(f"model.segments.{name}" for name in names[stretch.start : stretch.stop])
    claimed: set[str] = set()
    for segment, blocks in model.segments.items():
        parts, numbers = model.segment_parts(segment), list(cast(nn.ModuleDict, blocks))
        claimed |= {*parts.entering, *parts.leaving}
        if names.index(f"{segment}.{numbers[0]}") in stretch:
            needed.update(f"model.{part}" for part in parts.entering)
        if names.index(f"{segment}.{numbers[-1]}") in stretch:
            needed.update(f"model.{part}" for part in parts.leaving)
    if stretch.stop == len(names):
        needed["head"] += 1
        if isinstance(headed.head, LanguageHead):
            needed.update(f"model.{part}" for part in model.language_parts)
        # Poolers and the like, which heads may ask for.
        others = [name for name, _ in model.named_children() if name not in ("segments", *claimed)]
        needed.update(f"model.{name}" for name in others if not any(part.startswith(f"{name}.") for part in claimed))
    return needed


def needs_whole_backward(headed: HeadedModel, parts: Mapping[str, int]) -> bool:
    """Whether the gradients of a stage's weights would come out wrong, worked out apart from those of its inputs.

    They do where a forward uses a trained parameter more than once, for the way from its second use leads past the
    first, and where adapters side by side put their weights together for one product.

    Args:
        headed: With all of its modules.
        parts: Of the stage, from :func:`parts_of`.
    """
    arrangement = headed.model.arrangement
    if arrangement is not None and arrangement.copies > 1:
        return True
    uses = Counter[nn.Parameter]()
    for name, times in parts.items():
        for _, parameter in headed.get_submodule(name).named_parameters(remove_duplicate=False):
            uses[parameter] += times if parameter.requires_grad else 0
    return max(uses.values(), default=0) > 1


def first_names(headed: HeadedModel) -> dict[str, str]:
    """The one name of each parameter in the undivided model, by all the names it has there.

    What blocks share is called after the first of them, which a later stage does not have.

    Args:
        headed: With all of its modules.
    """
    first: dict[int, str] = {}
    return {
        name: first.setdefault(id(parameter), name)
        for name, parameter in headed.named_parameters(remove_duplicate=False)
    }


def apart_refusals(headed: HeadedModel, plan: ParallelPlan) -> Iterator[ConfigError]:
    """Whether a parameter is in both stages of a process whose stages are divided over copies.

    Args:
        headed: With all of its modules; it has blocks for the plan's stages.
        plan: Says whether copies divide, and how stages are laid.
    """
    if plan.stages_per_rank == 1 or not plan.is_sharded:
        return
    names = {id(parameter): name for name, parameter in headed.named_parameters()}
    parts = [parts_of(headed, stretch) for stretch in cut(len(list(headed.model.blocks())), plan.stages)]
    for rank in range(plan.pp):
        one, other = (
            {id(parameter) for part in parts[stage] for parameter in headed.get_submodule(part).parameters()}
            for stage in stages_of(plan, rank)
        )
        if both := one & other:
            yield ConfigError(
                f"{plan}: {min(names[parameter] for parameter in both)} is in two stages of process {rank} of a "
                "pipeline, each of which divides its parameters by itself",
                change="take schedule gpipe or 1f1b, of one stage a process, or zero below 2 and no tp beside dp",
            )


def keep(headed: HeadedModel, needed: Collection[str], named: Collection[str]) -> None:
    """Take away what has parameters and is not needed; modules without parameters stay.

    Args:
        headed: Changed in place.
        needed: Names of modules; what is inside of one of them is needed, too.
        named: Names under which something must be found, and be it :class:`Absent`.
    """
    inside = [*needed, *named]

    def visit(module: nn.Module, name: str) -> None:
        for child_name, child in list(module.named_children()):
            path = f"{name}.{child_name}" if name else child_name
            if path in needed or not any(True for _ in child.parameters()):
                continue
            # The names of all blocks are known everywhere: only blocks are absent, not segments.
            is_segment = name in ("model", "model.segments") and f"{path}.".startswith("model.segments.")
            if is_segment or any(other.startswith(f"{path}.") for other in inside):
                visit(child, path)
            elif isinstance(module, nn.ModuleDict):
                module[child_name] = Absent()
            else:
                setattr(module, child_name, Absent())

    visit(headed, "")


@dataclass(frozen=True, kw_only=True)
class Boundary:
    """What passes before one block of a model: shapes that are the same for all micro-batches of a capacity.

    Args:
        segment: Whose tokens the hidden states are.
        source: Whose tokens the source's are; ``None`` where blocks behind attend to none.
        place: Of the block.
    """

    segment: str
    source: str | None
    place: int

    @classmethod
    def before(cls, model: Model, place: int) -> Boundary:
        """The boundary before the block at a place in :meth:`Model.blocks`, which is not the first."""
        names = [name.rpartition(".")[0] for name, _ in model.blocks()]
        segments = list(model.segments)
        segment, previous = names[place], names[place - 1]
        if segment != previous:  # the segment before is whole, and this one begins from it
            return cls(segment=previous, source=cls._source(model, segments, previous), place=place)
        return cls(segment=segment, source=cls._source(model, segments, segment), place=place)

    @staticmethod
    def _source(model: Model, segments: Sequence[str], segment: str) -> str | None:
        return segments[segments.index(segment) - 1] if segment in model.sources else None


@dataclass(frozen=True, kw_only=True)
class Capacity:
    """Room for the largest micro-batch of a step.

    Args:
        rows: Of a micro-batch, with the copies for adapters side by side.
        tokens: Of a row, by segment; what is put in front of them included.
    """

    rows: int
    tokens: tuple[tuple[str, int], ...]

    @classmethod
    def of(cls, model: Model, in_front: dict[str, int], inputs: Sequence[Inputs], *, multiple: int = 32) -> Capacity:
        """The smallest that all micro-batches fit into, rounded up so that few different ones come.

        Args:
            model: Says what its segments read.
            in_front: Tokens that are put in front, by segment.
            inputs: Of all micro-batches.
            multiple: Tokens are rounded up to one.
        """
        copies = 1 if model.arrangement is None else model.arrangement.copies
        rows = max(len(one.token_ids) for one in inputs) * copies
        longest = {
            segment: max(model.segment_inputs(segment, one).token_ids.shape[1] for one in inputs)
            for segment in model.segments
        }
        tokens = tuple((segment, -(-n // multiple) * multiple + in_front[segment]) for segment, n in longest.items())
        return cls(rows=rows, tokens=tokens)

    def examples(self, boundary: Boundary, *, width: int, dtype: torch.dtype) -> tuple[Tensor, ...]:
        """Tensors of the shapes that pass a boundary."""
        tokens = dict(self.tokens)
        made: list[Tensor] = []
        for segment in (boundary.segment, boundary.source):
            if segment is not None:
                made.append(torch.zeros(self.rows, tokens[segment], width, dtype=dtype, requires_grad=True))
                made.append(torch.zeros(self.rows, tokens[segment], dtype=torch.int8))
        return tuple(made)

    def packed(self, carried: Carried, boundary: Boundary) -> tuple[Tensor, ...]:
        """What passes a boundary, padded to this capacity."""
        tokens = dict(self.tokens)
        made: list[Tensor] = []
        pairs = (
            (boundary.segment, carried.hidden, carried.mask),
            (boundary.source, carried.source, carried.source_mask),
        )
        for segment, hidden, mask in pairs:
            if segment is not None and hidden is not None and mask is not None:
                below, behind = self.rows - len(hidden), tokens[segment] - hidden.shape[1]
                made.append(F.pad(hidden, (0, 0, 0, behind, 0, below)))
                made.append(F.pad(mask.to(torch.int8), (0, behind, 0, below)))
        # Some schedules cut the graph off at what is sent, which nothing else may be a view of.
        return tuple(tensor.clone() if tensor._is_view() else tensor.contiguous() for tensor in made)

    def unpacked(
        self, received: Sequence[Tensor], boundary: Boundary, model: Model, in_front: dict[str, int], inputs: Inputs
    ) -> Carried:
        """What was packed, without what pads it."""
        made: list[Tensor | None] = [None] * 4
        for place, segment in enumerate((boundary.segment, boundary.source)):
            if segment is not None:
                read = model.segment_inputs(segment, inputs)
                rows = len(read.token_ids) * model.copies_before(boundary.place, inputs)
                seq = read.token_ids.shape[1] + in_front[segment]
                made[2 * place] = received[2 * place][:rows, :seq]
                made[2 * place + 1] = received[2 * place + 1][:rows, :seq].bool()
        hidden, mask, source, source_mask = made
        assert hidden is not None and mask is not None, "something always passes"  # noqa: PT018
        return Carried(hidden=hidden, mask=mask, source=source, source_mask=source_mask)


@torch.no_grad()
def tokens_in_front(model: Model) -> dict[str, int]:
    """Tokens that are put in front of a row, as prompts are, by segment.

    Args:
        model: With all of its modules.
    """
    hidden, mask = torch.zeros(1, 1, model.width), torch.ones(1, 1, dtype=torch.bool)
    return {
        segment: site(hidden, mask)[0].shape[1] - 1
        for segment, site in zip(model.segments, model.embedding_sites, strict=True)
    }


def relays(headed: HeadedModel, stretches: Sequence[range], places: Sequence[int]) -> dict[str, Relayed]:
    """What is sent around when the model is used whole.

    Args:
        headed: With all of its modules.
        stretches: Of blocks, by stage.
        places: Of the stages on the ``pp`` axis.
    """
    model = headed.model
    names = [name for name, _ in model.blocks()]

    def owner(block: str) -> int:
        place = names.index(block)
        return next(places[stage] for stage, stretch in enumerate(stretches) if place in stretch)

    made: dict[str, Relayed] = {}
    for segment, blocks in model.segments.items():
        parts, numbers = model.segment_parts(segment), list(cast(nn.ModuleDict, blocks))
        ends = ((parts.entering, owner(f"{segment}.{numbers[0]}")), (parts.leaving, owner(f"{segment}.{numbers[-1]}")))
        for part_names, place in ends:
            for name in part_names:
                module = model.get_submodule(name)
                if any(True for _ in module.parameters()):
                    kind = "site" if isinstance(module, EmbeddingSite) else "tensor"
                    made.setdefault(f"model.{name}", Relayed(owner=place, kind=kind))
    for stretch, place in zip(stretches, places, strict=True):
        made[f"model.segments.{names[stretch.stop - 1]}"] = Relayed(owner=place, kind="block")
    if isinstance(headed.head, LanguageHead):
        made["head"] = Relayed(owner=places[-1], kind="tensor")
    return made
