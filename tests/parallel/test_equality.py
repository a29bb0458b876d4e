"""Whatever the plan, training is that of one process: losses, weights and predictions."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from strategies import STRATEGIES
from token_task import FAMILIES, LEARNING_RATE, curve
from torch import Tensor
from workers import Workers

CASES = [(world, text) for world, texts in STRATEGIES.items() for text in texts]


@cache
def alone(family: str, rows: int = 8) -> tuple[list[float], dict[str, Tensor], list[int]]:
    return curve("dp=1", family, rows=rows)


def cases():
    """All of them; with four processes and more, one family is enough where the others take long."""
    for world, text in CASES:
        for family in FAMILIES:
            is_long = world > 4 or (world == 4 and family != "encoder_decoder")
            yield pytest.param(world, text, family, id=f"{text}-{family}", marks=[pytest.mark.slow] if is_long else [])


@pytest.mark.parametrize(("world", "text", "family"), list(cases()))
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
