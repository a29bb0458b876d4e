"""The loop: the loss rule, resuming after a kill, early stopping, what is written."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

from cypher.adapters.lora import Lora
from cypher.config import LoraConfig, TrainConfig
from cypher.data.batch import Batch, pad_inputs
from cypher.errors import CypherError, DataError, ModelError
from cypher.layers.linear import Linear
from cypher.layers.token_sum import Losses, TokenSum
from cypher.models.bert import Bert, BertConfig
from cypher.models.headed import HeadedModel
from cypher.models.model import Encoded, Head, Model
from cypher.parallel.engine import Portion
from cypher.parallel.parallelise import parallelise
from cypher.train import checkpoint
from cypher.train.checkpoint import load_trained, start_from
from cypher.train.loop import train
from cypher.train.optimiser import build_optimiser, rate_factor
from cypher.train.progress import read_metrics
from cypher.train.step import cut, train_step
from cypher.train.task import Task


class SumHead(Head):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.scores = Linear(width, 3)

    def forward(self, encoded: Encoded) -> torch.Tensor:
        return self.scores(encoded.hidden)


class TokenParity(Task[list[int], list[int], list[int]]):
    """Each token's class is its id modulo 3: learnt in a few steps, counted in tokens of unequal rows."""

    kind, metric = "parity", "accuracy"

    def head(self, model: Model) -> Head:
        return SumHead(model.width)

    def encode(self, row: list[int], *, index: int) -> list[list[int]]:
        return [row]

    def length(self, example: list[int]) -> int:
        return len(example)

    def collate(self, examples: Sequence[list[int]]) -> Batch:
        inputs = pad_inputs(examples, pad_id=0)
        return Batch(inputs=inputs, targets={"label": inputs.token_ids % 3}, rows=tuple(range(len(examples))))

    def counts(self, batch: Batch) -> Mapping[str, int]:
        return {"tokens": int(batch.inputs.attention_mask.sum())}

    def losses(self, head: Head, encoded: Encoded, batch: Batch) -> Losses:
        logits = head(encoded)
        kept = batch.inputs.attention_mask
        total = torch.nn.functional.cross_entropy(logits[kept].float(), batch.targets["label"][kept], reduction="sum")
        return {"tokens": TokenSum(total=total, count=int(kept.sum()))}

    def predict(self, model: HeadedModel, rows: Sequence[list[int]]) -> list[list[int]]:
        return [model(self.collate([row]).inputs)[0][0].argmax(-1).tolist() for row in rows]

    def score(self, rows: Sequence[list[int]], predictions: Sequence[list[int]]) -> dict[str, float]:
        pairs = [
            (token % 3, guess)
            for row, line in zip(rows, predictions, strict=True)
            for token, guess in zip(row, line, strict=True)
        ]
        return {"accuracy": sum(label == guess for label, guess in pairs) / len(pairs)}

    def calibrate(self, rows: Sequence[list[int]], predictions: Sequence[list[int]]) -> dict[str, Any]:
        return {"rows": len(rows)}


def headed(dropout: float = 0.0) -> HeadedModel:
    torch.manual_seed(0)
    bert = Bert(
        BertConfig(
            vocabulary_size=30,
            width=16,
            n_layers=1,
            n_heads=2,
            inner_width=16,
            dropout=dropout,
            attention_dropout=dropout,
            with_pooler=False,
        )
    )
    return HeadedModel(bert, SumHead(16))


ROWS = [[(seed * place) % 29 + 1 for place in range(1, 3 + seed % 11)] for seed in range(1, 97)]
CONFIG = TrainConfig(epochs=2, batch_size=8, learning_rate=5e-3, warmup=0.1, evaluations_per_epoch=2, seed=3)


def losses(folder: Path) -> list[float]:
    return [row["loss"] for row in read_metrics(folder / "metrics.jsonl") if "loss" in row]


def evaluations(folder: Path) -> list[dict[str, Any]]:
    return [row for row in read_metrics(folder / "metrics.jsonl") if "scores" in row]


def run(folder: Path, config: TrainConfig = CONFIG, dropout: float = 0.1) -> Any:
    return train(headed(dropout), TokenParity(), ROWS, ROWS[:8], config=config, dtype=torch.float32, folder=folder)


@pytest.mark.parametrize("accumulation", [2, 3, 8])
def test_cutting_a_batch_changes_neither_loss_nor_step(accumulation: int, tmp_path: Path) -> None:
    whole = train(headed(), TokenParity(), ROWS, ROWS[:8], config=CONFIG, dtype=torch.float32, folder=tmp_path / "a")
    config = CONFIG.model_copy(update={"accumulation": accumulation})
    cut = train(headed(), TokenParity(), ROWS, ROWS[:8], config=config, dtype=torch.float32, folder=tmp_path / "b")
    assert losses(tmp_path / "b") == pytest.approx(losses(tmp_path / "a"), abs=1e-5)
    assert cut.scores == whole.scores


@pytest.mark.parametrize("accumulation", [1, 2])
def test_micro_batches_side_by_side_are_the_same_run(accumulation: int, tmp_path: Path, threads: Any) -> None:
    """One, two and three threads give one curve, and the same number of threads gives the same bits."""
    config = CONFIG.model_copy(update={"accumulation": accumulation})
    curves = []
    for number, name in ((1, "one"), (2, "two"), (3, "three"), (3, "again")):
        threads(number)
        run(tmp_path / name, config, dropout=0.0)
        curves.append(losses(tmp_path / name))
    assert curves[1] == pytest.approx(curves[0], abs=1e-5)
    assert curves[2] == pytest.approx(curves[0], abs=1e-5)
    assert curves[3] == curves[2]


def test_a_model_that_draws_at_random_is_trained_on_one_thread_at_a_time(threads: Any) -> None:
    """Threads would take their draws from one generator in any order, and no run could be repeated."""
    threads(2)
    assert (parallelise(headed()).parts, parallelise(headed(dropout=0.1)).parts) == (2, 1)


def test_an_error_beside_another_micro_batch_arrives(threads: Any) -> None:
    threads(2)
    task, engine = TokenParity(), parallelise(headed())
    portions = [Portion(batch=task.collate(rows)) for rows in (ROWS[:2], [[31]])]  # a token beyond the vocabulary
    with pytest.raises(IndexError):
        train_step(engine, task, portions, build_optimiser(engine, CONFIG), rate=1.0, clip_norm=1.0)


def test_mean_of_means_would_differ() -> None:
    """The rows are unequal on purpose: averaging micro-batch means gives another number."""
    task, model = TokenParity(), headed().eval()
    halves = [task.collate(ROWS[:4]), task.collate(ROWS[8:12])]
    means = [(loss := task.step(model, half)["tokens"]).total.item() / loss.count for half in halves]
    engine, portions = parallelise(model), [Portion(batch=half) for half in halves]
    step = train_step(engine, task, portions, build_optimiser(engine, CONFIG), rate=0.0, clip_norm=0.0)
    together = sum(task.step(model, half)["tokens"].total.item() for half in halves) / sum(
        task.counts(half)["tokens"] for half in halves
    )
    assert step == pytest.approx(together, abs=1e-6)
    assert abs(sum(means) / 2 - together) > 1e-4


@pytest.mark.parametrize("n_rows", [1, 2, 5, 8, 13])
def test_a_step_is_cut_into_as_many_parts_as_there_are_places(n_rows: int) -> None:
    rows = list(range(n_rows))
    cuts = [cut(rows, copies=2, copy=copy, parts=3) for copy in range(2)]
    assert all(len(parts) == 3 for parts in cuts)
    real = [row for parts in cuts for part, is_ghost in parts if not is_ghost for row in part]
    assert real == rows
    sizes = [len(part) for parts in cuts for part, is_ghost in parts if not is_ghost]
    assert max(sizes) - min(sizes) <= 1
    assert all(part == [0] for parts in cuts for part, is_ghost in parts if is_ghost)


def test_it_learns_and_writes_what_it_says(tmp_path: Path) -> None:
    result = run(tmp_path, CONFIG.model_copy(update={"epochs": 12, "learning_rate": 2e-2}), dropout=0.0)
    assert result.scores["accuracy"] > 0.9
    assert result.calibration == {"rows": 8}
    assert result.steps == 12 * 12
    rows = read_metrics(tmp_path / "metrics.jsonl")
    assert [row["step"] for row in rows if "loss" in row] == list(range(1, 145))
    assert (tmp_path / "best.safetensors").exists()


def test_without_evaluations_only_the_last_weights_are_scored(tmp_path: Path) -> None:
    result = run(tmp_path, CONFIG.model_copy(update={"evaluations_per_epoch": 0}), dropout=0.0)
    assert [row["step"] for row in evaluations(tmp_path)] == [result.steps] == [24]
    assert json.loads((tmp_path / "best.json").read_text(encoding="utf-8"))["step"] == 24


KILLED = """
import sys, os, pathlib
sys.path.insert(0, {tests!r})
import test_loop as t
from cypher.train.checkpoint import Checkpoints
begin = Checkpoints.begin
def slow(checkpoints, position):
    begin(checkpoints, position)
    if position.step >= 10:
        checkpoints.finish()
        pathlib.Path({flag!r}).touch()
        __import__("time").sleep(60)
Checkpoints.begin = slow
t.run(pathlib.Path({folder!r}), t.CONFIG.model_copy(update={{"checkpoint_seconds": 1e-6}}), {dropout})
"""


@pytest.mark.parametrize("dropout", [0.1, 0.0])
def test_resumes_after_kill_9_to_the_same_losses(tmp_path: Path, dropout: float) -> None:
    """With dropout the draws must be those of the step; without it micro-batches go side by side."""
    whole = run(tmp_path / "whole", dropout=dropout)
    folder, flag = tmp_path / "killed", tmp_path / "flag"
    code = KILLED.format(tests=os.path.dirname(__file__), folder=str(folder), flag=str(flag), dropout=dropout)
    process = subprocess.Popen([sys.executable, "-c", code])
    while not flag.exists():
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    (folder / "checkpoints" / ".step-00000011").mkdir()  # as a crash in the middle of saving leaves it
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"step": 11, "lo')
    resumed = run(folder, dropout=dropout)
    assert losses(folder) == pytest.approx(losses(tmp_path / "whole"), abs=1e-6)
    assert resumed.scores == whole.scores
    assert dataclasses.replace(resumed, seconds=0) == dataclasses.replace(whole, seconds=0)


class Signalled(TokenParity):
    """Ctrl-C comes ``times`` times while the ``nth`` call of a method is under way."""

    def __init__(self, method: str, nth: int, *, times: int = 1) -> None:
        self.method, self.left, self.times = method, nth, times

    def _called(self, method: str) -> None:
        self.left -= method == self.method
        if method == self.method and self.left == 0:
            for _ in range(self.times):
                signal.raise_signal(signal.SIGINT)

    def step(self, model: HeadedModel, batch: Batch) -> Losses:
        found = super().step(model, batch)
        self._called("step")  # random numbers are drawn by now
        return found

    def predict(self, model: HeadedModel, rows: Sequence[list[int]]) -> list[list[int]]:
        self._called("predict")
        return super().predict(model, rows)


def train_tiny(folder: Path, task: TokenParity, rows: Sequence[list[int]] = ROWS, dropout: float = 0.1) -> Any:
    return train(headed(dropout), task, rows, ROWS[:8], config=CONFIG, dtype=torch.float32, folder=folder)


@pytest.mark.parametrize(
    ("method", "nth", "times"),
    [
        ("step", 4, 1),  # in the middle of a step, which is done first
        ("step", 6, 1),  # of the step before an evaluation
        ("step", 9, 2),  # twice: the step is lost, and done again
        ("predict", 2, 1),
        ("predict", 4, 1),  # the last one, without which the run has no end
    ],
)
@pytest.mark.parametrize("dropout", [0.1, 0.0])
def test_resumes_after_control_c_to_the_same_losses_and_scores(
    tmp_path: Path, method: str, nth: int, times: int, dropout: float
) -> None:
    whole = run(tmp_path / "whole", dropout=dropout)
    folder = tmp_path / "interrupted"
    with pytest.raises(KeyboardInterrupt):
        train_tiny(folder, Signalled(method, nth, times=times), dropout=dropout)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    resumed = run(folder, dropout=dropout)
    assert losses(folder) == losses(tmp_path / "whole")
    scores = [
        [row for row in read_metrics(path / "metrics.jsonl") if "scores" in row]
        for path in (folder, tmp_path / "whole")
    ]
    assert scores[0] == scores[1]
    assert dataclasses.replace(resumed, seconds=0) == dataclasses.replace(whole, seconds=0)


def test_a_second_control_c_ends_at_once(tmp_path: Path) -> None:
    task = Signalled("step", 4, times=2)
    with pytest.raises(KeyboardInterrupt):
        train_tiny(tmp_path, task)
    assert len(losses(tmp_path)) == 3
    assert not (tmp_path / "checkpoints").exists()


def test_in_another_thread_signals_are_left_alone(tmp_path: Path) -> None:
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(run, tmp_path).result().steps == 24


def test_a_checkpoint_is_never_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At every removal of a folder there is one to go on from."""
    remove, folder = shutil.rmtree, tmp_path / "checkpoints"
    removed: list[str] = []

    def watched(path: Path, *arguments: Any, **options: Any) -> None:
        if path.name.startswith("step-"):
            removed.append(path.name)
            assert [other for other in folder.glob("step-*") if other != path]
        remove(path, *arguments, **options)

    monkeypatch.setattr(checkpoint.shutil, "rmtree", watched)
    with pytest.raises(KeyboardInterrupt):
        train_tiny(tmp_path, Signalled("predict", 1))
    with pytest.raises(KeyboardInterrupt):
        train_tiny(tmp_path, Signalled("predict", 1))  # the same position once more
    run(tmp_path)
    assert removed == ["step-00000006", "step-00000006-evaluated", "step-00000012-evaluated", "step-00000018-evaluated"]
    assert [path.name for path in folder.iterdir()] == ["step-00000024-evaluated"]


def test_other_rows_than_a_run_began_with_are_refused(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        train_tiny(tmp_path, Signalled("step", 3))
    changed = [[*ROWS[0], 7], *ROWS[1:]]
    with pytest.raises(DataError, match=r"no longer those it was begun with: .* choose another --set name="):
        train_tiny(tmp_path, TokenParity(), changed)
    assert run(tmp_path).steps == 24


def test_strange_files_among_checkpoints_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / ".DS_Store").write_text("a file")
    (tmp_path / "checkpoints" / "step-notes.txt").write_text("a file")
    assert run(tmp_path).steps == 24
    assert run(tmp_path).steps == 24
    assert (tmp_path / "checkpoints" / ".DS_Store").exists()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "checkpoint.json cannot be read"),
        ("[]", "checkpoint.json holds a list: needs a whole checkpoint"),
        ('{"place": 3}', "is no checkpoint of this version"),
        ('{"about": {"step": 3}, "files": {}}', "is missing or cut off"),
    ],
)
def test_a_damaged_checkpoint_is_named(content: str, said: str, tmp_path: Path) -> None:
    run(tmp_path)
    (about,) = (tmp_path / "checkpoints").glob("*/checkpoint.json")
    about.write_text(content)
    with pytest.raises(ModelError, match=said):
        run(tmp_path)


def test_a_checkpoint_of_an_earlier_version_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints" / "step-00000003"
    folder.mkdir(parents=True)
    for name in ("position.json", "trained.safetensors", "optimiser.safetensors"):
        (folder / name).touch()
    with pytest.raises(ModelError, match=r"step-00000003 is no checkpoint of this version .*; remove the run's folder"):
        run(tmp_path)


def test_checkpoints_that_cannot_be_written_say_so(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").write_text("a file")
    with pytest.raises(DataError, match=r"checkpoints.* cannot be written \(.*\); choose another folder with --runs"):
        run(tmp_path)


def test_patience_stops_and_best_weights_come_back(tmp_path: Path) -> None:
    config = CONFIG.model_copy(update={"epochs": 50, "learning_rate": 1e-12, "patience": 2})
    assert run(tmp_path, config).steps == 18  # the first evaluation is the best, two more are no better


def test_nothing_to_learn_from_and_a_foreign_checkpoint_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="0 training"):
        train(headed(), TokenParity(), [], ROWS, config=CONFIG, dtype=torch.float32, folder=tmp_path)
    run(tmp_path)
    other = headed()
    other.head.scores = Linear(16, 4)
    with pytest.raises(ModelError, match="does not fit this recipe"):
        train(other, TokenParity(), ROWS, ROWS[:8], config=CONFIG, dtype=torch.float32, folder=tmp_path)


def test_a_run_goes_on_from_another_and_leaves_a_head_of_another_shape_alone(tmp_path: Path) -> None:
    run(tmp_path)
    first, same, other = headed(), headed(), headed()
    load_trained(parallelise(first), tmp_path / "best.safetensors")
    start_from(tmp_path, same)
    other.head.scores = Linear(16, 4)
    fresh = other.head.scores.weight.clone()
    start_from(tmp_path, other)
    for name, value in first.state_dict().items():
        assert torch.equal(same.state_dict()[name], value), name
        assert name.startswith("head.") or torch.equal(other.state_dict()[name], value), name
    assert torch.equal(other.head.scores.weight, fresh)


def test_a_run_does_not_go_on_from_another_adapter_or_from_nothing(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no weights of a run"):
        start_from(tmp_path, headed())
    run(tmp_path)
    frozen = headed()
    frozen.model.requires_grad_(False)
    Lora(LoraConfig(rank=2)).attach(frozen.model, "trained")
    with pytest.raises(ModelError, match="does not fit this recipe"):
        start_from(tmp_path, frozen)


def test_rate_rises_and_falls() -> None:
    factors = [rate_factor(step, total=20, warmup=0.25) for step in range(20)]
    assert factors[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert factors[5] == 1.0
    assert factors[-1] == pytest.approx(1 / 15)
    assert all(later <= earlier for earlier, later in pairwise(factors[5:]))


def test_bf16_keeps_trained_weights_in_fp32_and_follows_the_fp32_curve(tmp_path: Path) -> None:
    model = headed()
    train(model, TokenParity(), ROWS, ROWS[:8], config=CONFIG, dtype=torch.bfloat16, folder=tmp_path / "bf16")
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    run(tmp_path / "fp32", dropout=0.0)
    assert losses(tmp_path / "bf16") == pytest.approx(losses(tmp_path / "fp32"), abs=0.05)


class WorseThanNothing(TokenParity):
    """Its scores are no numbers until the evaluation that ``numbers_from`` counts to."""

    def __init__(self, numbers_from: int) -> None:
        self.left = numbers_from

    def score(self, rows: Sequence[list[int]], predictions: Sequence[list[int]]) -> dict[str, float]:
        self.left -= 1
        return super().score(rows, predictions) if self.left < 0 else {"accuracy": float("nan")}


def test_a_score_that_is_no_number_is_never_the_best(tmp_path: Path) -> None:
    def run_with(numbers_from: int, folder: Path) -> Any:
        task = WorseThanNothing(numbers_from)
        return train(headed(), task, ROWS, ROWS[:8], config=CONFIG, dtype=torch.float32, folder=folder)

    result = run_with(1, tmp_path / "late")
    assert result.scores["accuracy"] > 0
    with pytest.raises(CypherError, match=r"accuracy of the development rows was never a number.*learning_rate"):
        run_with(99, tmp_path / "never")
    assert not (tmp_path / "never" / "best.json").exists()
