"""Engines whose every process runs all blocks: copies (``dp``, ``zero``) and divided matrices (``tp``)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from cypher.data.batch_workers import one_at_a_time
from cypher.models.headed import HeadedModel
from cypher.parallel.clip import settle
from cypher.parallel.engine import Engine, Objective, Portion, Predict
from cypher.parallel.penalise import penalise
from cypher.parallel.rows import join_rows, own_rows
from cypher.parallel.shard import divided_again
from cypher.parallel.world import World


class WholeEngine(Engine):
    """Copies of a model, or copies that each hold a part of it and gather what they need.

    Args:
        working: Around the model and its head; wrapped by DDP, sharded by FSDP2, or neither.
        headed: The same model and head.
        world: All processes.
        settle_parts: Sums what divided matrices leave partial, before the clip.
    """

    def __init__(
        self,
        working: nn.Module,
        headed: HeadedModel,
        world: World,
        *,
        settle_parts: Callable[[], None],
    ) -> None:
        super().__init__(headed, world, headed.trained())
        self.working, self.settle_parts = working, settle_parts

    def backward(self, objective: Objective, portions: Sequence[Portion]) -> float:
        """As in :class:`Engine`."""
        loss = 0.0
        for number, portion in enumerate(portions):

            def work(headed: HeadedModel, portion: Portion = portion) -> Tensor:
                # Gradients are averaged over the copies, and a step's loss is the sum of their shares.
                return objective.share_of_whole(headed, portion) * self.world.plan.dp

            with self._summing(number == len(portions) - 1):
                share = self.working(work)
                share.backward()
            loss += share.item() / self.world.plan.dp
        settle(self.trained.values())
        self.settle_parts()
        penalty = penalise([self.headed])
        (total,) = self.world.total([loss], over=("replicate", "shard"))
        return total + penalty

    def _summing(self, is_last: bool) -> AbstractContextManager[None]:
        """Copies exchange gradients in the last micro-batch alone; divided gradients are summed as they come."""
        if isinstance(self.working, DistributedDataParallel) and not is_last:
            return self.working.no_sync()
        return nullcontext()

    def predict(self, predict: Predict, rows: Sequence[Any]) -> list[Any]:
        """As in :class:`Engine`: copies that hold everything divide the rows, others look at all of them together."""
        with one_at_a_time(), divided_again([self.working]):
            if not isinstance(self.working, DistributedDataParallel):
                together: list[Any] = self.working(lambda headed: predict(headed, rows))
                return together
            found = predict(self.headed, own_rows(rows, self.world))
            return join_rows(found, len(rows), self.world)
