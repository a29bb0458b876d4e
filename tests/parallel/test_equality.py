"""Whatever the plan, training is that of one process: losses, weights and predictions."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from strategies import cases
from token_task import LEARNING_RATE, curve
from torch import Tensor
from workers import Workers


@cache
def alone(family: str, rows: int = 8) -> tuple[list[float], dict[str, Tensor], list[int]]:
    return curve("dp=1", family, rows=rows)


@pytest.mark.parametrize(("world", "text", "family"), cases())
def test_a_plan_trains_as_one_process(workers: Workers, world: int, text: str, family: str):
    expected_losses, expected, predicted = alone(family)
    results = workers.run(world, curve, text, family)
    for losses, _, found in results:
        assert losses == pytest.approx(expected_losses, abs=1e-5)
        assert found == predicted
    weights = results[0][1]
    assert weights.keys() == expected.keys()
    for name, value in expected.items():
        # Adam divides small gradients by their own size, so the order of sums shows up to a share of the rate.
        torch.testing.assert_close(weights[name], value, rtol=0, atol=0.1 * LEARNING_RATE, msg=name)
