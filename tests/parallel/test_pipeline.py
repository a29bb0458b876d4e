"""Stages of which some have nothing that is trained, and parameters that several of them, or one several times, use."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch
from tensor_cases import prepared
from token_task import LEARNING_RATE, TokenTask, learn, model_of
from torch import Tensor
from workers import Workers

from cypher.config import ParallelPlan
from cypher.models.headed import HeadedModel
from cypher.models.model import Model
from cypher.parallel.activations import Workload
from cypher.parallel.gather import whole_tensors
from cypher.parallel.parallelise import parallelise
from cypher.parallel.search import possible_plans
from cypher.parallel.stages import apart_refusals
from cypher.parallel.world import joined

# Which blocks have something that is trained, and what of it is shared.
ADAPTERS: dict[str, dict[str, Any]] = {
    "one rule for all blocks": {"preset": "compacter", "reduction_factor": 8},
    "one trunk for all blocks": {"preset": "prefix_tuning", "length": 4, "bottleneck": 6},
    "before the first block": {"preset": "prompt_tuning"},
    "upper blocks": {"preset": "lora", "leave_out": (0, 1)},
    "lower blocks": {"preset": "lora", "leave_out": (2, 3)},
}
PLANS = (
    (2, "pp=2"),
    (2, "pp=2,schedule=interleaved_zero_bubble"),
    (2, "pp=2,schedule=zbv_zero_bubble"),
    (4, "pp=4"),
    (4, "dp=2,pp=2,zero=1"),
    (4, "dp=2,pp=2,zero=3"),
    (4, "pp=2,tp=2,sequence_parallel"),
)
SPLIT_BACKWARD = ("interleaved_zero_bubble", "zbv_zero_bubble", "dualpipe_v")


def trained(text: str, model: Model, steps: int = 4) -> tuple[list[float], dict[str, Tensor]]:
    with joined(ParallelPlan.parse(text)) as world:
        engine = parallelise(HeadedModel(model, TokenTask().head(model)), world)
        return learn(engine, steps=steps), whole_tensors(engine.trained, world)


def with_adapter(text: str, name: str) -> tuple[list[float], dict[str, Tensor]]:
    return trained(text, prepared("encoder", adapter=ADAPTERS[name], only_adapter=True))


def unequal_halves(text: str, decoder_blocks: int) -> tuple[list[float], dict[str, Tensor]]:
    return trained(text, model_of("encoder_decoder", decoder_blocks=decoder_blocks))


def untied(text: str) -> tuple[list[float], dict[str, Tensor]]:
    return trained(text, model_of("decoder", tied=False))


@cache
def alone(case: Any, *arguments: Any) -> tuple[list[float], dict[str, Tensor]]:
    return case("dp=1", *arguments)


def assert_as_alone(results: list[tuple[list[float], dict[str, Tensor]]], case: Any, *arguments: Any) -> None:
    expected_losses, expected = alone(case, *arguments)
    for losses, _ in results:
        assert losses == pytest.approx(expected_losses, abs=1e-5)
    weights = results[0][1]
    assert weights.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(weights[name], value, rtol=0, atol=0.1 * LEARNING_RATE, msg=name)


@pytest.mark.parametrize("name", ADAPTERS)
@pytest.mark.parametrize(
    ("world", "text"),
    [pytest.param(*plan, id=plan[1], marks=[pytest.mark.slow] if plan[0] > 2 else []) for plan in PLANS],
)
def test_stages_share_what_blocks_share_and_may_train_nothing(workers: Workers, world: int, text: str, name: str):
    assert_as_alone(workers.run(world, with_adapter, text, name), with_adapter, name)


@pytest.mark.parametrize("decoder_blocks", [1, 3])
@pytest.mark.parametrize("schedule", SPLIT_BACKWARD)
def test_a_decoder_begins_in_any_stage(workers: Workers, schedule: str, decoder_blocks: int):
    """With one block, its tied table is read and predicts in one stage, and its gradient is that of both."""
    results = workers.run(2, unequal_halves, f"pp=2,schedule={schedule}", decoder_blocks)
    assert_as_alone(results, unequal_halves, decoder_blocks)


@pytest.mark.parametrize("schedule", SPLIT_BACKWARD)
def test_copies_divide_the_parameters_of_several_stages(workers: Workers, schedule: str):
    """Nothing is tied, so no parameter is in two stages of one process."""
    assert_as_alone(workers.run(4, untied, f"dp=2,pp=2,zero=3,schedule={schedule}"), untied)


@pytest.mark.parametrize("text", ["dp=2,pp=2,zero=2,schedule=zbv_zero_bubble", "dp=2,tp=2,pp=2,schedule=dualpipe_v"])
def test_what_copies_divide_is_in_one_stage_of_a_process(text: str):
    """The tied table is where the model begins and where it ends, which V-shaped schedules give to one process."""
    plan = ParallelPlan.parse(text)
    for tied in (True, False):
        model = model_of("decoder", tied=tied)
        headed = HeadedModel(model, model.language_head())
        said = [str(refusal) for refusal in apart_refusals(headed, plan)]
        assert len(said) == tied
        assert all("is in two stages of process 0 of a pipeline" in line for line in said)


def test_only_plans_that_can_start_are_offered():
    with torch.device("meta"):
        model = model_of("decoder")
    headed = HeadedModel(model, model.language_head())
    plans = list(possible_plans(headed, 4, Workload(batch_size=64, sequence_length=16)))
    assert any(plan.pp > 1 and plan.is_sharded for plan in plans)
    assert any(plan.is_v_shaped for plan in plans)
    assert not any(plan.is_v_shaped and plan.is_sharded for plan in plans)
