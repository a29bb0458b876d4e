"""Copies of a model (dp, zero): short batches, accumulation, parts that a step leaves out, penalties."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from token_task import TokenTask, curve, learn, model_of
from workers import Workers

from cypher.adapters.adapter import freeze_all_but
from cypher.adapters.arrangement import activate
from cypher.adapters.methods import adapter_of
from cypher.config import ParallelPlan, adapter_config
from cypher.errors import ConfigError
from cypher.models.headed import HeadedModel
from cypher.models.model import Model
from cypher.parallel.gather import whole_tensors
from cypher.parallel.parallelise import parallelise
from cypher.parallel.world import joined

KINDS = ("dp=2", "dp=2,zero=1", "dp=2,zero=2", "dp=2,zero=3")


@pytest.mark.parametrize(("world", "text"), [(4, "dp=4"), (4, "dp=4,zero=3"), (2, "dp=2,zero=1")])
@pytest.mark.parametrize("rows", [1, 3])
def test_fewer_rows_than_copies(workers: Workers, world: int, text: str, rows: int) -> None:
    """As in the last step of an epoch: copies without a row of their own compute, and count nothing."""
    expected, _, _ = curve("dp=1", "decoder", steps=4, rows=rows)
    for losses, _, _ in workers.run(world, curve, text, "decoder", 4, rows):
        assert losses == pytest.approx(expected, abs=1e-5)


def adapted(family: str, preset: str = "seq_bn", *, drop_in_training: int = 0) -> Model:
    model = model_of(family)
    adapter_of(adapter_config({"preset": preset})).attach(model, "first")
    freeze_all_but(model, "first")
    if drop_in_training:
        activate(model, "first", drop_in_training=drop_in_training)
    return model


def adapter_curve(text: str, preset: str, drop_in_training: int = 0, accumulation: int = 1) -> Any:
    with joined(ParallelPlan.parse(text)) as world:
        model = adapted("encoder", preset, drop_in_training=drop_in_training)
        engine = parallelise(HeadedModel(model, TokenTask().head(model)), world)
        losses = learn(engine, steps=5, accumulation=accumulation)
        return losses, whole_tensors(engine.trained, world), sorted(engine.trained)


@pytest.mark.parametrize("text", KINDS)
@pytest.mark.parametrize("preset", ["seq_bn", "lora"])
def test_adapters_are_trained_and_nothing_else(workers: Workers, text: str, preset: str) -> None:
    expected, whole, names = adapter_curve("dp=1", preset)
    (losses, weights, own), _ = workers.run(2, adapter_curve, text, preset)
    assert own == names
    assert losses == pytest.approx(expected, abs=1e-5)
    for name, value in whole.items():
        torch.testing.assert_close(weights[name], value, rtol=0, atol=1e-4, msg=name)


@pytest.mark.parametrize("text", KINDS)
def test_parts_that_a_step_leaves_out(workers: Workers, text: str) -> None:
    """AdapterDrop draws anew in each step, the same in every process; what is left out has no gradient."""
    expected, _, _ = adapter_curve("dp=1", "seq_bn", 3)
    without, _, _ = adapter_curve("dp=1", "seq_bn", 0)
    assert expected != without
    for losses, _, _ in workers.run(2, adapter_curve, text, "seq_bn", 3):
        assert losses == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("text", KINDS)
def test_accumulation_changes_nothing(workers: Workers, text: str) -> None:
    expected, _, _ = adapter_curve("dp=1", "lora")
    for losses, _, _ in workers.run(2, adapter_curve, text, "lora", 0, 3):
        assert losses == pytest.approx(expected, abs=1e-5)


def meets(text: str) -> str:
    try:
        with joined(ParallelPlan.parse(text)):
            return "met"
    except ConfigError as error:
        return str(error)


def test_a_plan_for_another_number_of_processes_is_refused(workers: Workers) -> None:
    for said in workers.run(2, meets, "dp=4"):
        assert "a plan for 4 processes (dp=4) in a run of 2" in said


def repeated(text: str, seed: int) -> list[float]:
    with joined(ParallelPlan.parse(text)) as world:
        model = model_of("encoder", dropout=0.1)
        engine = parallelise(HeadedModel(model, TokenTask().head(model)), world)
        return learn(engine, steps=3, seed=seed)


def test_with_dropout_a_run_repeats_under_its_plan(workers: Workers) -> None:
    first, again = workers.run(2, repeated, "dp=2", 0), workers.run(2, repeated, "dp=2", 0)
    assert first == again
    assert workers.run(2, repeated, "dp=2", 1) != first
