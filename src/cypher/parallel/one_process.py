"""The engine of one process: nothing is divided, and micro-batches share its threads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from cypher.data.batch_workers import each_batch
from cypher.models.headed import HeadedModel
from cypher.parallel.engine import Engine, Objective, Portion, Predict
from cypher.parallel.own_draws import draws_at_random
from cypher.parallel.penalise import penalise
from cypher.parallel.world import World


class OneProcess(Engine):
    """Nothing is divided; micro-batches are worked on side by side, a thread each, where nothing is drawn at random.

    Args:
        headed: The model and its head.
        world: Of one process.
    """

    def __init__(self, headed: HeadedModel, world: World) -> None:
        super().__init__(headed, world, headed.trained())
        self.parts = threads_side_by_side(headed)

    def backward(self, objective: Objective, portions: Sequence[Portion]) -> float:
        """As in :class:`Engine`."""
        parameters = list(self.trained.values())
        loss = 0.0
        for start in range(0, len(portions), self.parts):
            together = portions[start : start + self.parts]
            if len(together) > 1:
                loss += _backward_side_by_side(
                    lambda portion: objective.share_of_whole(self.headed, portion), together, parameters
                )
            else:
                share = objective.share_of_whole(self.headed, together[0])
                share.backward()  # type: ignore[no-untyped-call]
                loss += share.item()
        return loss + penalise([self.headed])

    def predict(self, predict: Predict, rows: Sequence[Any]) -> list[Any]:
        """As in :class:`Engine`."""
        with torch.inference_mode():
            return predict(self.headed, rows)


def threads_side_by_side(model: nn.Module) -> int:
    """How many micro-batches this process should work on at once: one a thread, or 1 where the model draws at random.

    Threads that each have a micro-batch wait for each other once a step; splitting every product over them makes
    them wait hundreds of times, which a machine that does other work too turns into a multiple of the time. Random
    draws come from one generator, so with dropout the order of threads would change the run.
    """
    return 1 if draws_at_random(model) else torch.get_num_threads()


def _backward_side_by_side(
    share_of: Callable[[Portion], Tensor], portions: Sequence[Portion], parameters: Sequence[nn.Parameter]
) -> float:
    """Add the gradients of all ``portions``, in their order whichever thread is first, so that a run repeats."""
    found: dict[int, tuple[float, tuple[Tensor | None, ...]]] = {}

    def work(place: int) -> None:
        share = share_of(portions[place])
        gradients = torch.autograd.grad(share, parameters, allow_unused=True)
        found[place] = (share.item(), gradients)

    each_batch(work, range(len(portions)), inference=False)
    for place in range(len(portions)):
        for parameter, gradient in zip(parameters, found[place][1], strict=True):
            if gradient is not None:
                parameter.grad = gradient if parameter.grad is None else parameter.grad.add_(gradient)
    return sum(found[place][0] for place in range(len(portions)))
