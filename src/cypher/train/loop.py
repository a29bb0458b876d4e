"""The only training loop. It knows tasks by protocol; no method and no task has a branch in it."""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from cypher.config import TrainConfig
from cypher.data.batch import batches_for_training
from cypher.errors import CypherError, DataError
from cypher.files import write_text
from cypher.hub.weights import write_safetensors
from cypher.models.headed import HeadedModel
from cypher.parallel.engine import Engine, Portion
from cypher.parallel.gather import whole_tensors
from cypher.parallel.parallelise import parallelise
from cypher.parallel.world import AXES, World
from cypher.train.checkpoint import Checkpoints, Position, load_trained
from cypher.train.interruption import Interruption
from cypher.train.optimiser import build_optimiser, rate_factor
from cypher.train.progress import MetricsFile, NoMetrics, RunWatcher, Silence
from cypher.train.step import cut, seed_step, train_step
from cypher.train.task import Task, may_be_cut


@dataclass(frozen=True, kw_only=True)
class TrainResult:
    """How a run ended.

    Args:
        scores: Of the best checkpoint on the development rows.
        calibration: What the task wants remembered beside the weights.
        steps: Optimiser steps done.
        seconds: Spent training, over all sittings.
    """

    scores: dict[str, float]
    calibration: dict[str, Any]
    steps: int
    seconds: float


def train(
    model: HeadedModel,
    task: Task[Any, Any, Any],
    rows: Sequence[Any],
    development: Sequence[Any],
    *,
    config: TrainConfig,
    dtype: torch.dtype,
    folder: Path,
    progress: RunWatcher | None = None,
    world: World | None = None,
) -> TrainResult:
    """Train what requires a gradient, keep the best checkpoint, resume where an earlier sitting ended.

    Args:
        model: On return it holds the best weights and is in evaluation mode.
        task: The objective.
        rows: To learn from.
        development: To choose by, never learnt from.
        config: The schedule.
        dtype: Of the matrix products, ``torch.float32`` or ``torch.bfloat16``.
        folder: Gets ``metrics.jsonl``, ``checkpoints/``, ``best.safetensors`` and ``best.json``.
        progress: Who watches.
        world: All processes of the run and how the model is divided over them; each calls this function with the same
            arguments. ``None`` is this process alone.

    Raises:
        DataError: There is nothing to learn from or to choose by, the folder cannot be written, or an unfinished run
            was begun with other rows.
        ModelError: A checkpoint is broken, or of another model or adapter.
        CypherError: Training diverged before there was anything worth keeping.
        KeyboardInterrupt: After Ctrl-C, once the step that was under way is done and kept; at once after a second one.
    """
    if not rows or not development:
        raise DataError(f"{len(rows)} training and {len(development)} development rows", needed="at least 1 of each")
    progress = progress or Silence()
    folder.mkdir(parents=True, exist_ok=True)
    examples = [example for index, row in enumerate(rows) for example in task.encode(row, index=index)]
    lengths = [task.length(example) for example in examples]
    per_epoch = -(-len(examples) // config.batch_size)
    total = per_epoch * config.epochs
    evaluate_every = max(1, per_epoch // config.evaluations_per_epoch) if config.evaluations_per_epoch else total

    model.model.prepare_training(dtype)
    engine = parallelise(model, world)
    world = engine.world
    optimiser = build_optimiser(engine, config)
    parts = config.accumulation * engine.parts if may_be_cut(task) else 1
    checkpoints = Checkpoints(folder / "checkpoints", engine, optimiser)
    position = _same_rows(checkpoints.load(), rows, development, folder)
    if world.is_main:
        kept = {"steps": position.step, "evaluated": position.evaluated_step}
        metrics: MetricsFile | NoMetrics = MetricsFile(folder / "metrics.jsonl", **kept)
    else:
        metrics, progress = NoMetrics(), Silence()
    progress.started(total_steps=total, first_step=position.step)
    started = time.perf_counter() - position.seconds
    saved = time.perf_counter()
    ordered, order = -1, list[list[int]]()  # the epoch whose batches these are
    is_whole = True  # whether model and optimiser are those of ``position``
    with Interruption() as interruption, checkpoints:
        try:
            while True:
                # Processes differ in when they are interrupted and in their clocks; they stop and save together.
                is_late = world.is_main and time.perf_counter() - saved > config.checkpoint_seconds
                stops, saves, writes = _together(world, interruption.is_wanted, is_late, checkpoints.is_writing)
                if stops:
                    raise KeyboardInterrupt
                if not writes:
                    checkpoints.finish()
                is_due = position.step == total or position.step % evaluate_every == 0
                if is_due and position.evaluated_step < position.step:
                    position = _evaluate(engine, task, development, folder, position, metrics, progress, interruption)
                    saves = True
                if saves:
                    checkpoints.begin(position)
                    saved = time.perf_counter()
                if position.step >= total or (config.patience and position.stale >= config.patience):
                    checkpoints.finish()
                    break
                epoch, place = divmod(position.step, per_epoch)
                if epoch != ordered:
                    ordered = epoch
                    order = batches_for_training(lengths, batch_size=config.batch_size, seed=config.seed, epoch=epoch)
                chosen = [examples[row] for row in order[place]]
                portions = [
                    Portion(batch=replace(task.collate(part), step=position.step), is_ghost=ghost)
                    for part, ghost in cut(chosen, copies=world.plan.dp, copy=world.copy, parts=parts)
                    if not ghost or world.plan.world > 1
                ]
                model.train()
                seed_step(seed=config.seed, step=position.step, world=world)
                model.model.begin_step(seed=config.seed, step=position.step)
                before = time.perf_counter()
                is_whole = False
                loss = train_step(
                    engine,
                    task,
                    portions,
                    optimiser,
                    rate=rate_factor(position.step, total=total, warmup=config.warmup),
                    clip_norm=config.clip_norm,
                )
                position = replace(position, step=position.step + 1, seconds=time.perf_counter() - started)
                is_whole = True
                speed = sum(lengths[index] for index in order[place]) / (time.perf_counter() - before)
                metrics.write({"step": position.step, "epoch": epoch, "loss": loss, "tokens_per_second": round(speed)})
                progress.stepped(step=position.step, loss=loss, tokens_per_second=speed)
        except KeyboardInterrupt:
            if is_whole:
                checkpoints.begin(position, copies=False)
                checkpoints.finish()
            raise
    if not (folder / "best.json").exists():
        raise CypherError(
            f"{task.metric} of the development rows was never a number: training diverged",
            change="lower train.learning_rate",
        )
    load_trained(engine, folder / "best.safetensors")
    model.eval()
    best = json.loads((folder / "best.json").read_text(encoding="utf-8"))
    return TrainResult(
        scores=best["scores"], calibration=best["calibration"], steps=position.step, seconds=position.seconds
    )


def _together(world: World, *wishes: bool) -> list[bool]:
    """What any of the processes wishes."""
    return [bool(total) for total in world.total([float(wish) for wish in wishes], over=AXES)]


def _same_rows(position: Position, rows: Sequence[Any], development: Sequence[Any], folder: Path) -> Position:
    """The position with the digest of its rows, which are those it was begun with.

    Raises:
        DataError: They are not: a file of the data has changed since.
    """
    digest = hashlib.sha256()
    for row in (*rows, None, *development):
        digest.update(json.dumps(row, default=asdict, sort_keys=True).encode() + b"\n")
    if position.rows not in (None, digest.hexdigest()):
        raise DataError(
            f"the rows of {folder} are no longer those it was begun with",
            needed="the files of data as they were then",
            change="put them back, or choose another --set name=…",
        )
    return replace(position, rows=digest.hexdigest())


def _evaluate(
    engine: Engine,
    task: Task[Any, Any, Any],
    development: Sequence[Any],
    folder: Path,
    position: Position,
    metrics: MetricsFile | NoMetrics,
    progress: RunWatcher,
    interruption: Interruption,
) -> Position:
    """Score the development rows and keep the weights if they are the best so far."""
    engine.headed.eval()
    # Processes that left at different places would wait for each other.
    with interruption.at_once() if engine.world.mesh is None else nullcontext():
        predictions = engine.predict(task.predict, development)
        scores = engine.world.agreed(task.score(development, predictions))
    score = scores[task.metric]
    # A score that is no number, as of weights that have run away, is never the best, not even as the first.
    best = not math.isnan(score) and (position.best_score is None or score > position.best_score)
    if best:
        whole = whole_tensors(engine.trained, engine.world)
        if engine.world.is_main:
            write_safetensors(folder / "best.safetensors", whole)
            kept = {
                "step": position.step,
                "scores": scores,
                "calibration": task.calibrate(development, predictions),
            }
            write_text(folder / "best.json", json.dumps(kept, indent=1))
        engine.world.wait()
    metrics.write({"step": position.step, "scores": scores})
    progress.evaluated(step=position.step, scores=scores, best=best)
    held = score if best else position.best_score
    return replace(position, evaluated_step=position.step, best_score=held, stale=0 if best else position.stale + 1)
