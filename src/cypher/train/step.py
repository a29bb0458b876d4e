"""One optimiser step over its micro-batches, by the one loss rule."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from cypher.data.batch import Batch
from cypher.data.batch_workers import each_batch
from cypher.layers.penalty import penalty_of
from cypher.models.headed import HeadedModel
from cypher.train.optimiser import set_rate
from cypher.train.task import Task


def train_step(
    model: HeadedModel,
    task: Task[Any, Any, Any],
    batches: Sequence[Batch],
    optimiser: torch.optim.Optimizer,
    *,
    rate: float,
    clip_norm: float,
    side_by_side: int = 1,
) -> float:
    """Forward and backward over all micro-batches, clip, update.

    Each loss is a sum divided by its count over *all* micro-batches, so cutting a batch does not change the step.

    Args:
        model: In training mode.
        task: Gives counts before, losses after the forward.
        batches: The micro-batches of this step.
        optimiser: Its gradients are zero on entry and on exit.
        rate: Factor on the peak learning rates.
        clip_norm: Largest global L2 norm of the gradient; 0 = no clip.
        side_by_side: Micro-batches that are worked on at once, a thread each; see :func:`threads_side_by_side`.

    Returns:
        The step's loss, ``Σ weight · total / count``, with the penalties on parameters alone.
    """
    counts: Counter[str] = Counter()
    for batch in batches:
        counts.update(task.counts(batch))

    def share_of(batch: Batch) -> Tensor:
        losses = task.step(model, batch)
        planned = task.counts(batch)
        assert {name: term.count for name, term in losses.items()} == dict(planned), "counts() and step() disagree"
        return torch.stack([term.weight * term.total / counts[name] for name, term in losses.items()]).sum()

    parameters = [parameter for group in optimiser.param_groups for parameter in group["params"]]
    loss = 0.0
    for start in range(0, len(batches), side_by_side):
        together = batches[start : start + side_by_side]
        if len(together) > 1:
            loss += _backward_side_by_side(share_of, together, parameters)
        else:
            share = share_of(together[0])
            share.backward()  # type: ignore[no-untyped-call]
            loss += share.item()
    if (penalty := penalty_of(model)) is not None:
        penalty.backward()  # type: ignore[no-untyped-call]
        loss += penalty.item()
    if clip_norm:
        nn.utils.clip_grad_norm_(parameters, clip_norm)
    set_rate(optimiser, rate)
    optimiser.step()
    optimiser.zero_grad(set_to_none=True)
    return loss


def threads_side_by_side(model: nn.Module) -> int:
    """How many micro-batches this process should work on at once: one a thread, or 1 where the model draws at random.

    Threads that each have a micro-batch wait for each other once a step; splitting every product over them makes
    them wait hundreds of times, which a machine that does other work too turns into a multiple of the time. Random
    draws come from one generator, so with dropout the order of threads would change the run.
    """
    draws = any(
        (module.p if isinstance(module, nn.Dropout) else getattr(module, "dropout", 0.0)) != 0.0
        for module in model.modules()
        if isinstance(module, nn.Dropout) or isinstance(getattr(module, "dropout", None), float)
    )
    return 1 if draws else torch.get_num_threads()


def _backward_side_by_side(
    share_of: Callable[[Batch], Tensor], batches: Sequence[Batch], parameters: Sequence[nn.Parameter]
) -> float:
    """Add the gradients of all ``batches``, in their order whichever thread is first, so that a run repeats."""
    found: dict[int, tuple[float, tuple[Tensor | None, ...]]] = {}

    def work(place: int) -> None:
        share = share_of(batches[place])
        gradients = torch.autograd.grad(share, parameters, allow_unused=True)
        found[place] = (share.item(), gradients)

    each_batch(work, range(len(batches)), inference=False)
    for place in range(len(batches)):
        for parameter, gradient in zip(parameters, found[place][1], strict=True):
            if gradient is not None:
                parameter.grad = gradient if parameter.grad is None else parameter.grad.add_(gradient)
    return sum(found[place][0] for place in range(len(batches)))
