"""One optimiser step over its micro-batches, by the one loss rule."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

from cypher.data.batch import Batch, Inputs
from cypher.layers.token_sum import Losses
from cypher.models.headed import HeadedModel
from cypher.models.model import Encoded, Head
from cypher.parallel.engine import Engine, Portion
from cypher.parallel.world import World
from cypher.train.optimiser import set_rate
from cypher.train.task import Task

Row = TypeVar("Row")


@dataclass(frozen=True, kw_only=True)
class StepObjective:
    """A task's losses in one step, divided by counts that are known over all of it.

    Args:
        task: The objective.
        counts: Terms of each loss, over all processes and micro-batches.
    """

    task: Task[Any, Any, Any]
    counts: Mapping[str, float]

    def reads(self, batch: Batch) -> Inputs:
        """What the model is given."""
        return self.task.reads(batch)

    def share(self, head: Head, encoded: Encoded, portion: Portion) -> Tensor:
        """Of the step's loss."""
        return self._share(self.task.losses(head, encoded, portion.batch), portion)

    def share_of_whole(self, headed: HeadedModel, portion: Portion) -> Tensor:
        """Of the step's loss, from the whole model."""
        return self._share(self.task.step(headed, portion.batch), portion)

    def _share(self, losses: Losses, portion: Portion) -> Tensor:
        planned = self.task.counts(portion.batch)
        assert {name: term.count for name, term in losses.items()} == dict(planned), "counts() and step() disagree"
        terms = [term.weight * term.total / (self.counts[name] or 1) for name, term in losses.items()]
        share = torch.stack(terms).sum()
        return share * 0 if portion.is_ghost else share


def train_step(
    engine: Engine,
    task: Task[Any, Any, Any],
    portions: Sequence[Portion],
    optimiser: torch.optim.Optimizer,
    *,
    rate: float,
    clip_norm: float,
) -> float:
    """Forward and backward over all micro-batches, clip, update.

    Each loss is a sum divided by its count over *all* micro-batches of all processes, so neither cutting a batch nor
    dividing it over processes changes the step.

    Args:
        engine: The model, in training mode.
        task: Gives counts before, losses after the forward.
        portions: This process's micro-batches.
        optimiser: Its gradients are zero on entry and on exit.
        rate: Factor on the peak learning rates.
        clip_norm: Largest global L2 norm of the gradient; 0 = no clip.

    Returns:
        The step's loss, ``Σ weight · total / count``, with the penalties on parameters alone.
    """
    objective = StepObjective(task=task, counts=step_counts(engine.world, task, portions))
    loss = engine.backward(objective, portions)
    if clip_norm:
        engine.clip(clip_norm)
    set_rate(optimiser, rate)
    optimiser.step()
    optimiser.zero_grad(set_to_none=True)
    return loss


def step_counts(world: World, task: Task[Any, Any, Any], portions: Sequence[Portion]) -> dict[str, float]:
    """Terms of each loss in a step, over all processes; the names are those of every batch of a task."""
    counts: Counter[str] = Counter()
    for portion in portions:
        of_batch = task.counts(portion.batch)
        counts.update({name: 0 if portion.is_ghost else count for name, count in of_batch.items()})
    names = sorted(counts)
    return dict(zip(names, world.total([counts[name] for name in names], over=("replicate", "shard")), strict=True))


def cut(rows: Sequence[Row], *, copies: int, copy: int, parts: int) -> list[tuple[list[Row], bool]]:
    """One copy's micro-batches of a step's rows.

    Args:
        rows: Of the whole step.
        copies: That share them.
        copy: Which of them, from 0.
        parts: Micro-batches of one copy.

    Returns:
        Rows of each, and whether it is a ghost: there are fewer rows than places for them, and the first stands in.

    Example:
        >>> cut([4, 7, 5], copies=2, copy=0, parts=2), cut([4, 7, 5], copies=2, copy=1, parts=2)
        ([([4], False), ([7], False)], [([5], False), ([4], True)])
    """
    places, own = copies * parts, range(copy * parts, (copy + 1) * parts)
    size, larger = divmod(len(rows), places)
    starts = [place * size + min(place, larger) for place in range(places + 1)]
    cuts = [list(rows[starts[place] : starts[place + 1]]) for place in own]
    return [(part, False) if part else (list(rows[:1]), True) for part in cuts]


def seed_step(*, seed: int, step: int, world: World) -> None:
    """Begin a step's random draws from its number alone, so that a resumed run draws the same.

    Copies and stages draw apart; the processes of a divided matrix work on the same tokens and draw the same.

    Args:
        seed: Of the run.
        step: Counted from 0.
        world: Of this process.
    """
    name = f"{seed}/{step}/{world.copy}/{world.place('pp')}"
    torch.manual_seed(int.from_bytes(hashlib.sha256(name.encode()).digest()[:7], "big"))
