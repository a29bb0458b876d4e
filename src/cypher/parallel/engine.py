"""What the training loop asks of a divided model, and what the model asks of a step."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import torch
from torch import Tensor, nn

from cypher.data.batch import Batch, Inputs
from cypher.models.headed import HeadedModel
from cypher.models.model import Encoded, Head
from cypher.parallel.clip import clip
from cypher.parallel.replicate import divided_optimiser
from cypher.parallel.world import World


@dataclass(frozen=True, kw_only=True)
class Portion:
    """A micro-batch of one process.

    Args:
        batch: Its rows.
        is_ghost: Whether it stands for no rows at all, because the step has fewer than there are places for them: it is
            computed, so that processes stay in step, and counts nothing.
    """

    batch: Batch
    is_ghost: bool = False


class Objective(Protocol):
    """The loss of one step, whose counts are known over all processes."""

    def reads(self, batch: Batch) -> Inputs:
        """What the model is given, the same in every process that asks for the same batch."""

    def share(self, head: Head, encoded: Encoded, portion: Portion) -> Tensor:
        """Part of the step's loss, a scalar: ``Σ weight · total / global count``; 0 of a ghost, with its graph."""

    def share_of_whole(self, headed: HeadedModel, portion: Portion) -> Tensor:
        """The same from the whole model, for tasks that have a step of their own."""


Predict: TypeAlias = Callable[[HeadedModel, Sequence[Any]], list[Any]]
"""One prediction a row, in order, from a model in evaluation mode."""


class Engine(ABC):
    """A model that is divided by a plan, trained one step at a time.

    Attributes:
        headed: The model and its head, of which this process may hold a part.
        world: All processes.
        trained: What this process trains, by the names it has in the undivided model; divided ones are DTensors. Which
            these are is settled once, when the model has been divided.
        parts: Micro-batches that a step should have at least.
    """

    parts: int = 1

    def __init__(self, headed: HeadedModel, world: World, trained: Mapping[str, nn.Parameter]) -> None:
        self.headed, self.world, self.trained = headed, world, trained

    @abstractmethod
    def backward(self, objective: Objective, portions: Sequence[Portion]) -> float:
        """Forward and backward of one step; gradients are summed over processes as the plan wants.

        Args:
            objective: Of this step.
            portions: This process's micro-batches; as many in every process.

        Returns:
            The step's loss over all processes, penalties on parameters included, the same everywhere.
        """

    def clip(self, max_norm: float) -> float:
        """Scale the gradient down to a global L2 norm, over all processes, each parameter counted once.

        Args:
            max_norm: 0 leaves it as it is.

        Returns:
            The norm it had.
        """
        return clip(self.trained.values(), max_norm, world=self.world)

    def optimiser(self, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        """AdamW over this process's parameters; its state is divided by ``zero = 1``, and with them by 2 and 3.

        Args:
            groups: As of ``torch.optim.AdamW``.
        """
        if self.world.plan.zero == 1:
            return divided_optimiser(groups, self.world)
        return torch.optim.AdamW(groups, fused=True)

    @abstractmethod
    def predict(self, predict: Predict, rows: Sequence[Any]) -> list[Any]:
        """Predictions of the whole model, the same in every process.

        Args:
            predict: Called in every process, for all rows or for some; without a gradient.
            rows: Any number.
        """
