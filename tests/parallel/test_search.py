"""Plans compared: bubbles and traffic as the papers have them, and the order in which plans are offered."""

from __future__ import annotations

from typing import Any

import pytest

from cypher.config import ParallelPlan
from cypher.errors import ConfigError
from cypher.models.headed import HeadedModel
from cypher.models.sizes import preset_model
from cypher.parallel.activations import Workload
from cypher.parallel.cost import Machine, Wire, bubble, operations, step_seconds, wire
from cypher.parallel.explain import Explainer
from cypher.parallel.search import possible_plans, search
from cypher.parallel.validate import refusals

WORK = Workload(batch_size=64, sequence_length=512)


def headed(name: str) -> HeadedModel:
    model = preset_model(name)
    return HeadedModel(model, model.language_head())


@pytest.mark.parametrize(
    ("schedule", "share"),
    [
        ("gpipe", 3 / 11),
        ("1f1b", 3 / 11),
        ("interleaved", 3 / 19),
        ("looped_bfs", 3 / 19),
        ("interleaved_zero_bubble", 3 / 51),
        ("zbv_zero_bubble", 0),
        ("dualpipe_v", 3 / 27),
    ],
)
def test_bubbles_of_four_stages_and_eight_micro_batches(schedule: Any, share: float):
    assert bubble(ParallelPlan(pp=4, microbatches=8, schedule=schedule)) == pytest.approx(share)
    assert bubble(ParallelPlan(dp=4)) == 0


def sent(text: str, rank: int = 0, **work: Any) -> Wire:
    plan, given = ParallelPlan.parse(text), Workload(**{"batch_size": 64, "sequence_length": 512, **work})
    explainer = Explainer(headed("bert-large"), given)
    return wire(plan, explainer.parts(plan)[rank], explainer.blocks(plan)[rank], given, segments=1, rank=rank)


def test_copies_send_as_rings_do():
    """A ring's all-reduce is a reduce-scatter and a gather; ZeRO's traffic: Rajbhandari et al. 2019, section 7."""
    numbers = sum(parameter.numel() for parameter in headed("bert-large").parameters())
    blocks = sum(p.numel() for n, p in headed("bert-large").named_parameters() if "segments" in n)
    whole = 4 * numbers
    assert sent("dp=4").copies == pytest.approx(1.5 * whole)
    assert sent("dp=4,zero=1").copies == pytest.approx(2.25 * whole)
    assert sent("dp=4,zero=2").copies == pytest.approx(1.5 * whole)
    assert sent("dp=4,zero=3").copies == pytest.approx(1.5 * whole + 0.75 * 4 * blocks)
    assert sent("dp=4,zero=3,replicas=2").copies == pytest.approx(0.5 * (2 * whole + 4 * blocks) + 0.5 * whole)
    # Divided weights are gathered anew in each micro-batch; whole ones are averaged once.
    assert sent("dp=4,zero=2", accumulation=2).copies == pytest.approx(2 * sent("dp=4,zero=2").copies, rel=1e-6)
    assert sent("dp=4", accumulation=2).copies == sent("dp=4").copies
    assert sent("dp=4").tensors == sent("dp=4").stages == 0


def test_tensors_and_stages_send_hidden_states():
    hidden = 64 * 512 * 1024 * 2
    # Two sums a block and one more for a table, each forward and backward (Shoeybi et al. 2019, section 3).
    assert sent("tp=4").tensors == 2 * 3 / 4 * hidden * (24 * 2 * 2 + 2)
    assert sent("tp=4,activation_checkpointing").tensors == 2 * 3 / 4 * hidden * (24 * 2 * 3 + 2)
    assert [sent("pp=4", rank).stages for rank in range(4)] == [hidden, 2 * hidden, 2 * hidden, hidden]
    assert sent("pp=4,schedule=interleaved", 1).stages == 4 * hidden


def test_operations_are_six_a_number_and_token():
    """Kaplan et al. 2020, arXiv 2001.08361, section 2.1; attention over positions comes on top."""
    model = headed("llama-10b")
    plan, work = ParallelPlan(), Workload(batch_size=1, sequence_length=128)
    blocks = Explainer(model, work).blocks(plan)[0]
    numbers = sum(parameter.numel() for parameter in model.parameters()) - 32000 * 4096
    found = operations(plan, blocks, work, vocabulary=32000) / 128
    assert found == pytest.approx(6 * numbers + 48 * 12 * 4096 * 128, rel=1e-3)


def test_time_is_work_and_what_hides_behind_nothing():
    machine, plan = Machine(memory=1, link=10.0, peak=100.0), ParallelPlan(pp=2, microbatches=3)
    assert step_seconds(plan, 40.0, Wire(copies=5, stages=20), machine) == pytest.approx(1 / 0.75 + 2)
    assert step_seconds(plan, 40.0, Wire(copies=50, tensors=10), machine) == pytest.approx(5 + 1)


def test_ten_billion_parameters_are_planned_for_sixty_four_processes():
    model = headed("llama-10b")
    work = Workload(batch_size=128, sequence_length=4096)
    found = search(model, 64, work, Machine(memory=80e9))
    assert len({(each.plan.dp, each.plan.tp, each.plan.pp, each.plan.zero) for each in found}) == len(found)
    assert {each.plan.world for each in found} == {64}
    fits = [each.fits for each in found]
    assert fits == sorted(fits, reverse=True)
    assert 0 < sum(fits) < len(fits)
    times = [each.step_seconds for each in found if each.fits]
    assert times == sorted(times)
    assert all((each.held.peak <= 80e9) == each.fits for each in found)


def test_only_what_validates_is_offered():
    model = headed("bert-large")
    plans = list(possible_plans(model, 8, WORK))
    assert len(plans) == len(set(plans))
    assert all(not refusals(plan, model.model, batch_size=64) for plan in plans)
    wanted = ("dp=8", "tp=8", "dp=8,zero=3,replicas=2", "dp=2,tp=2,pp=2,microbatches=4", "pp=8,microbatches=16")
    assert {ParallelPlan.parse(text) for text in wanted} <= set(plans)


def test_a_number_of_processes_that_nothing_divides_is_refused():
    with pytest.raises(ConfigError, match="no plan for 7 processes divides this model and a batch of 64"):
        search(headed("bert-large"), 7, WORK, Machine(memory=80e9))
