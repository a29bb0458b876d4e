"""The only training loop. It knows tasks by protocol; no method and no task has a branch in it."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from cypher.config import TrainConfig
from cypher.data.batch import batches_for_training, split_batch
from cypher.errors import CypherError, DataError
from cypher.files import write_text
from cypher.hub.weights import write_safetensors
from cypher.train.checkpoint import Position, load_checkpoint, load_trained, save_checkpoint, trained_tensors
from cypher.train.optimiser import build_optimiser, rate_factor
from cypher.train.progress import MetricsFile, Progress, Silence
from cypher.train.step import threads_side_by_side, train_step
from cypher.train.task import HeadedModel, Task, may_be_cut


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
    progress: Progress | None = None,
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

    Raises:
        DataError: There is nothing to learn from or to choose by.
        CypherError: Training diverged before there was anything worth keeping.
    """
    if not rows or not development:
        raise DataError(f"{len(rows)} training and {len(development)} development rows", needed="at least 1 of each")
    progress = progress or Silence()
    folder.mkdir(parents=True, exist_ok=True)
    examples = [example for index, row in enumerate(rows) for example in task.encode(row, index=index)]
    lengths = [task.length(example) for example in examples]
    per_epoch = -(-len(examples) // config.batch_size)
    total = per_epoch * config.epochs
    evaluate_every = max(1, per_epoch // config.evaluations_per_epoch)

    model.model.prepare_training(dtype)
    side_by_side = threads_side_by_side(model)
    optimiser = build_optimiser(model, config)
    position = load_checkpoint(folder / "checkpoints", model, optimiser)
    metrics = MetricsFile(folder / "metrics.jsonl", keep_until=position.step)
    progress.started(total_steps=total, first_step=position.step)
    started = time.perf_counter() - position.seconds
    saved = time.perf_counter()
    try:
        while position.step < total and not (config.patience and position.stale >= config.patience):
            epoch, place = divmod(position.step, per_epoch)
            order = batches_for_training(lengths, batch_size=config.batch_size, seed=config.seed, epoch=epoch)
            parts = split_batch(order[place], config.accumulation * side_by_side if may_be_cut(task) else 1)
            collated = [task.collate([examples[index] for index in part]) for part in parts]
            batches = [replace(batch, step=position.step) for batch in collated]
            model.train()
            model.model.begin_step(seed=config.seed, step=position.step)
            before = time.perf_counter()
            loss = train_step(
                model,
                task,
                batches,
                optimiser,
                rate=rate_factor(position.step, total=total, warmup=config.warmup),
                clip_norm=config.clip_norm,
                side_by_side=side_by_side,
            )
            speed = sum(lengths[index] for index in order[place]) / (time.perf_counter() - before)
            position = replace(position, step=position.step + 1, seconds=time.perf_counter() - started)
            metrics.write({"step": position.step, "epoch": epoch, "loss": loss, "tokens_per_second": round(speed)})
            progress.stepped(step=position.step, loss=loss, tokens_per_second=speed)
            if position.step % evaluate_every == 0 or position.step == total:
                position = _evaluate(model, task, development, folder, position, metrics, progress)
                save_checkpoint(folder / "checkpoints", model, optimiser, position)
                saved = time.perf_counter()
            elif time.perf_counter() - saved > config.checkpoint_seconds:
                save_checkpoint(folder / "checkpoints", model, optimiser, position)
                saved = time.perf_counter()
    except KeyboardInterrupt:
        save_checkpoint(folder / "checkpoints", model, optimiser, position)
        raise
    if not (folder / "best.json").exists():
        raise CypherError(
            f"{task.metric} of the development rows was never a number: training diverged",
            change="lower train.learning_rate",
        )
    load_trained(model, folder / "best.safetensors")
    model.eval()
    best = json.loads((folder / "best.json").read_text(encoding="utf-8"))
    return TrainResult(
        scores=best["scores"], calibration=best["calibration"], steps=position.step, seconds=position.seconds
    )


def _evaluate(
    model: HeadedModel,
    task: Task[Any, Any, Any],
    development: Sequence[Any],
    folder: Path,
    position: Position,
    metrics: MetricsFile,
    progress: Progress,
) -> Position:
    """Score the development rows and keep the weights if they are the best so far."""
    model.eval()
    with torch.inference_mode():
        predictions = task.predict(model, development)
    scores = task.score(development, predictions)
    score = scores[task.metric]
    # A score that is no number, as of weights that have run away, is never the best, not even as the first.
    best = not math.isnan(score) and (position.best_score is None or score > position.best_score)
    if best:
        write_safetensors(folder / "best.safetensors", trained_tensors(model))
        kept = {
            "step": position.step,
            "scores": scores,
            "calibration": task.calibrate(development, predictions),
        }
        write_text(folder / "best.json", json.dumps(kept, indent=1))
    metrics.write({"step": position.step, "scores": scores})
    progress.evaluated(step=position.step, scores=scores, best=best)
    held = score if best else position.best_score
    return replace(position, best_score=held, stale=0 if best else position.stale + 1)
