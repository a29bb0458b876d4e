"""One clip for whatever is divided: the norm is that of the whole gradient, and every part is scaled alike."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from strategies import cases
from token_task import TokenTask, model_of, portions_of, rows_of
from torch import Tensor
from workers import Workers

from cypher.config import ParallelPlan
from cypher.models.headed import HeadedModel
from cypher.parallel.gather import whole_tensors
from cypher.parallel.parallelise import parallelise
from cypher.parallel.world import joined
from cypher.train.step import StepObjective, step_counts

MAX_NORM = 0.01


def clipped(text: str, family: str) -> tuple[float, float, dict[str, Tensor]]:
    """The norm before the clip and after it, and in the main process the gradient that is left."""
    with joined(ParallelPlan.parse(text)) as world:
        model, task = model_of(family), TokenTask()
        engine = parallelise(HeadedModel(model, task.head(model)), world)
        portions = portions_of(task, rows_of(0), world, engine.parts)
        engine.backward(StepObjective(task=task, counts=step_counts(world, task, portions)), portions)
        before, after = engine.clip(MAX_NORM), engine.clip(0.0)
        gradients = {name: one.grad for name, one in engine.trained.items() if one.grad is not None}
        return before, after, whole_tensors(gradients, world)


@cache
def alone(family: str) -> tuple[float, float, dict[str, Tensor]]:
    return clipped("dp=1", family)


def test_one_process_is_scaled_to_the_largest_norm():
    before, after, gradients = alone("encoder_decoder")
    assert before > 10 * MAX_NORM
    assert after == pytest.approx(MAX_NORM, rel=1e-4)
    squares = torch.stack([gradient.double().square().sum() for gradient in gradients.values()])
    assert squares.sum().sqrt().item() == pytest.approx(MAX_NORM, rel=1e-4)


@pytest.mark.parametrize(("world", "text", "family"), cases())
def test_the_clip_is_that_of_one_process(workers: Workers, world: int, text: str, family: str):
    before, after, expected = alone(family)
    results = workers.run(world, clipped, text, family)
    for found in results:
        assert found[:2] == pytest.approx((before, after), rel=1e-4)
    gradients = results[0][2]
    assert gradients.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(gradients[name], value, rtol=1e-3, atol=1e-4 * MAX_NORM, msg=name)
