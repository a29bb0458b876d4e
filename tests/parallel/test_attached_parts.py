"""A classifier with what may be attached to it, evaluated in the middle of its training, under plans of every kind."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import NamedTuple

import pytest
import torch
import torch.nn.functional as F
from token_task import LEARNING_RATE, TokenTask, model_of, portions_of, rows_of
from torch import Tensor, nn
from workers import Workers

from cypher.adapters.adapter import freeze_all_but
from cypher.adapters.arrangement import activate
from cypher.adapters.composition import Fuse, Parallel, Stack
from cypher.adapters.fusion import add_fusion, freeze_all_but_fusion
from cypher.adapters.methods import adapter_of
from cypher.config import ParallelPlan, TrainConfig, adapter_config
from cypher.data.batch import Batch
from cypher.layers.token_sum import Losses, TokenSum
from cypher.models.headed import HeadedModel
from cypher.models.model import Encoded, Head, Model
from cypher.parallel.gather import whole_tensors
from cypher.parallel.parallelise import parallelise
from cypher.parallel.world import joined
from cypher.train.optimiser import build_optimiser
from cypher.train.step import seed_step, train_step

KINDS = 5
# One of each sort; the others are slow together.
FAST = ("dp=2,zero=3", "pp=2,schedule=zbv_zero_bubble")


class FirstToken(Head):
    """Two layers of its own on the first token."""

    def __init__(self, width: int) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.layers = nn.Sequential(nn.Linear(width, KINDS), nn.Tanh(), nn.Linear(KINDS, KINDS))

    def forward(self, encoded: Encoded) -> Tensor:
        logits: Tensor = self.layers(encoded.hidden[:, 0].float())
        return logits


class KindTask(TokenTask):
    """Which of five kinds a row is; predictions are probabilities."""

    def head(self, model: Model) -> Head:
        return FirstToken(model.width)

    def counts(self, batch: Batch) -> dict[str, int]:
        return {"kind": len(batch.rows)}

    def losses(self, head: Head, encoded: Encoded, batch: Batch) -> Losses:
        kinds = (batch.inputs.token_ids[:, 1] % KINDS)[encoded.row_of]
        total = F.cross_entropy(head(encoded), kinds, reduction="sum")
        return {"kind": TokenSum(total=total, count=len(batch.rows))}

    def predict(self, model: HeadedModel, rows: Sequence[list[int]]) -> list[list[float]]:
        batches = [self.collate([(row, index)]) for index, row in enumerate(rows)]
        return [model(batch.inputs)[0].softmax(-1)[0].tolist() for batch in batches]


def with_adapters(model: Model, preset: str, *names: str) -> None:
    for name in names:
        adapter_of(adapter_config({"preset": preset})).attach(model, name)
    freeze_all_but(model, names[-1])


def head_alone(model: Model) -> None:
    model.requires_grad_(False)


def invertible(model: Model) -> None:
    with_adapters(model, "seq_bn_inv", "a")


def low_rank(model: Model) -> None:
    with_adapters(model, "lora", "a")


def dropped(model: Model) -> None:
    with_adapters(model, "seq_bn", "a")
    activate(model, "a", drop_in_training=3)


def shared_and_dropped(model: Model) -> None:
    """One rule for all blocks, which a step without any of them does not use, wherever it is held."""
    adapter_of(adapter_config({"preset": "compacter", "reduction_factor": 8, "leave_out": (0, 3)})).attach(model, "a")
    freeze_all_but(model, "a")
    activate(model, "a", drop_in_training=3)


def stacked(model: Model) -> None:
    with_adapters(model, "seq_bn", "a", "b")
    activate(model, Stack("a", "b"))


def fused(model: Model) -> None:
    with_adapters(model, "seq_bn", "a", "b")
    tree = Fuse("a", "b")
    add_fusion(model, tree)
    activate(model, tree)
    freeze_all_but_fusion(model, tree)


def side_by_side(model: Model) -> None:
    """The rows are copied behind the first block's attention."""
    with_adapters(model, "seq_bn", "a", "b")
    activate(model, Parallel("a", "b"))


def side_by_side_above(model: Model) -> None:
    """The rows are copied in the third block, so that no stage of a pipeline but the last has the copies."""
    with_adapters(model, "seq_bn", "a", "b")
    activate(model, Parallel("a", "b"), skipped_layers=[0, 1])


def everything(model: Model) -> None:
    """All weights are trained."""


class Case(NamedTuple):
    """What is trained, with how many rows a step, and how often the micro-batches go through."""

    prepare: Callable[[Model], None]
    rows: int = 8
    accumulation: int = 1
    steps: int = 4


CASES = {
    "everything": Case(everything),
    "head alone": Case(head_alone),
    "invertible": Case(invertible),
    "low rank": Case(low_rank),
    "dropped at random": Case(dropped),
    "shared and dropped at random": Case(shared_and_dropped, steps=8),
    "stacked": Case(stacked),
    "fused": Case(fused),
    "side by side": Case(side_by_side),
    "side by side above": Case(side_by_side_above),
    "fewer rows than places": Case(everything, rows=3),
    "accumulation": Case(everything, accumulation=2),
}
PLANS = (
    "dp=2,zero=1",
    "dp=2,zero=3",
    "tp=2,sequence_parallel,activation_checkpointing",
    "pp=2,activation_checkpointing",
    "pp=2,schedule=zbv_zero_bubble",
    "dp=4,zero=3,replicas=2,offload",
    "dp=2,pp=2,zero=3",
    "dp=2,pp=2,schedule=dualpipe_v",
    "pp=2,tp=2,sequence_parallel",
    "dp=2,tp=2,zero=3",
)


class Learnt(NamedTuple):
    """Losses and predictions of each step, and what was trained, in the main process."""

    losses: list[float]
    predictions: list[list[list[float]]]
    weights: dict[str, Tensor]


def learnt(text: str, name: str) -> Learnt:
    case = CASES[name]
    with joined(ParallelPlan.parse(text)) as world:
        model, task = model_of("encoder"), KindTask()
        case.prepare(model)
        engine = parallelise(HeadedModel(model, task.head(model)), world)
        optimiser = build_optimiser(engine, TrainConfig(learning_rate=LEARNING_RATE))
        losses, predictions = [], []
        for step in range(case.steps):
            engine.headed.train()
            seed_step(seed=0, step=step, world=world)
            engine.headed.model.begin_step(seed=0, step=step)
            parts = case.accumulation * engine.parts if world.plan.world > 1 else 1
            portions = portions_of(task, rows_of(step, rows=case.rows), world, parts)
            losses.append(train_step(engine, task, portions, optimiser, rate=1.0, clip_norm=0.05))
            engine.headed.eval()
            predictions.append(engine.predict(task.predict, rows_of(50 + step, rows=5)))
        return Learnt(losses, predictions, whole_tensors(engine.trained, world))


@cache
def alone(name: str) -> Learnt:
    return learnt("dp=1", name)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize(
    ("world", "text"),
    [
        pytest.param(world, text, id=text, marks=[] if text in FAST else [pytest.mark.slow])
        for text in PLANS
        for world in [ParallelPlan.parse(text).world]
    ],
)
def test_learns_and_predicts_as_one_process(workers: Workers, world: int, text: str, name: str) -> None:
    expected = alone(name)
    results: list[Learnt] = workers.run(world, learnt, text, name)
    for found in results:
        assert found.losses == pytest.approx(expected.losses, abs=1e-5)
        torch.testing.assert_close(
            torch.tensor(found.predictions), torch.tensor(expected.predictions), rtol=0, atol=1e-4
        )
    weights = results[0].weights
    assert weights.keys() == expected.weights.keys()
    for parameter, value in expected.weights.items():
        torch.testing.assert_close(weights[parameter], value, rtol=0, atol=0.1 * LEARNING_RATE, msg=parameter)
