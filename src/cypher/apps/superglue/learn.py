"""One task with one seed: learnt, resumed, scored, and asked again later."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from cypher.apps.superglue.backbone import Backbone
from cypher.apps.superglue.benchmark import TASKS, BenchmarkTask
from cypher.apps.superglue.forms import Answers, form_config, learnable, objective_rows
from cypher.apps.superglue.metrics import score
from cypher.apps.superglue.parts import Parts
from cypher.apps.superglue.settings import Settings
from cypher.apps.superglue.submission import jsonl, submission_lines
from cypher.config import TrainConfig
from cypher.errors import ConfigError, ModelError
from cypher.files import write_text
from cypher.train.checkpoint import load_trained, start_from
from cypher.train.loop import train

Show = Callable[[str, int, int], None]
"""Progress: what, how much is done, of how much."""


class Watch:
    """The loop's progress as one bar.

    Args:
        what: Is learnt.
        show: Draws it.
    """

    def __init__(self, what: str, show: Show) -> None:
        self.what, self.show = what, show
        self.total = 0

    def started(self, *, total_steps: int, first_step: int) -> None:
        """Draw where it begins."""
        self.total = total_steps
        self.show(self.what, first_step, total_steps)

    def stepped(self, *, step: int, loss: float, tokens_per_second: float) -> None:
        """Draw a step."""
        self.show(self.what, step, self.total)

    def evaluated(self, *, step: int, scores: dict[str, float], best: bool) -> None:
        """The bar says nothing of scores."""


def learn(
    backbone: Backbone,
    task: BenchmarkTask,
    parts: Parts,
    *,
    settings: Settings,
    seed: int,
    folder: Path,
    first: Path | None = None,
    show: Show | None = None,
) -> dict[str, Any]:
    """Learn a task, or take what an earlier sitting has finished.

    Args:
        backbone: Lends the model.
        task: Which one.
        parts: Its rows.
        settings: How it is learnt.
        seed: Of weights and order.
        folder: Of this task and seed; an unfinished one is resumed.
        first: Folder of another task whose weights this one goes on from.
        show: Draws progress.

    Returns:
        ``metrics`` on the rows to report on, ``chosen`` on those to choose by, ``steps``, ``seconds``.

    Raises:
        ConfigError: The folder holds a run of other settings.
    """
    config = form_config(task, settings)
    schedule = TrainConfig(
        epochs=settings.epochs,
        batch_size=settings.batch_size,
        learning_rate=settings.learning_rate,
        evaluations_per_epoch=settings.evaluations_per_epoch,
        patience=settings.patience,
        warmup=0.1,
        seed=seed,
        start_from=None if first is None else str(first),
    )
    about = {
        "model": backbone.name,
        "adapter": None if backbone.adapter is None else backbone.adapter.model_dump(mode="json"),
        "task": config.model_dump(mode="json"),
        "train": schedule.model_dump(mode="json"),
        "rows": {"train": _digest(parts.train), "choose": _digest(parts.choose), "report": _digest(parts.report)},
    }
    _claim(folder, about)
    if (finished := _read(folder / "scores.json")) is not None:
        return finished
    any_number = task.key == "multirc"
    rows = sample(learnable(objective_rows(parts.train), any_number=any_number), settings.limit)
    development = sample(learnable(objective_rows(parts.choose), any_number=any_number), settings.choose_limit)
    with backbone.lent(config, seed=seed) as (model, form):
        if first is not None and not (folder / "checkpoints").exists():
            start_from(first, model)
        result = train(
            model,
            form,
            rows,
            development,
            config=schedule,
            dtype=backbone.dtype,
            folder=folder,
            progress=None if show is None else Watch(f"{task.name} {folder.name}", show),
        )
        with torch.inference_mode():
            found = form.predict(model, objective_rows(parts.report))
    predictions = Answers(task=task, calibration=result.calibration).predictions(parts.report, found)
    write_text(folder / "predictions.jsonl", jsonl(submission_lines(task, parts.report, predictions)))
    scores = {
        "metrics": score(task, parts.report, predictions),
        "chosen": result.scores[form.metric] / 100,
        "rows": {"train": len(rows), "choose": len(development), "report": len(parts.report)},
        "steps": result.steps,
        "seconds": round(result.seconds, 1),
    }
    write_text(folder / "scores.json", json.dumps(scores, indent=1) + "\n")
    return scores


def ask(backbone: Backbone, task: BenchmarkTask, rows: Sequence[Any], *, folder: Path) -> list[Any]:
    """Predictions of a task that was learnt, for rows with or without labels.

    Args:
        backbone: Of the run.
        task: Of the rows; a diagnostic is answered by the task it belongs to.
        rows: Of the benchmark.
        folder: Of the learnt task and seed.

    Raises:
        ModelError: The folder holds no finished run.
    """
    about, best = _read(folder / "task.json"), _read(folder / "best.json")
    if about is None or best is None:
        raise ModelError(f"{folder} holds no task that was learnt", change="run cypher superglue run again")
    trained = TASKS[task.diagnostic_of] if task.diagnostic_of else task
    kind = type(form_config(trained, Settings(max_length=256, epochs=1, batch_size=1, learning_rate=1.0)))
    config = kind.model_validate(about["task"])
    with backbone.lent(config, seed=0) as (model, form):
        model.model.prepare_training(backbone.dtype)
        load_trained(model, folder / "best.safetensors")
        model.eval()
        with torch.inference_mode():
            found = form.predict(model, objective_rows(rows))
    return Answers(task=trained, calibration=best["calibration"]).predictions(rows, found)


def sample(rows: list[Any], limit: int | None) -> list[Any]:
    """At most so many rows, the same ones every time, in their order."""
    if limit is None or len(rows) <= limit:
        return rows
    chosen = random.Random(0).sample(range(len(rows)), limit)  # noqa: S311 - a choice of rows, not a secret
    return [rows[place] for place in sorted(chosen)]


def _claim(folder: Path, about: Mapping[str, Any]) -> None:
    """Write what the folder is of, or check that it is the same. What it went on from may be gone by now."""
    before = _read(folder / "task.json")
    if before is not None and _without_start(before) != _without_start(about):
        different = [key for key in about if before.get(key) != about[key]]
        raise ConfigError(
            f"{folder} holds a run of another {' and '.join(different)}",
            change="choose another --output, or remove that folder",
        )
    if before is None:
        folder.mkdir(parents=True, exist_ok=True)
        write_text(folder / "task.json", json.dumps(about, indent=1) + "\n")


def _without_start(about: Mapping[str, Any]) -> dict[str, Any]:
    return json.loads(json.dumps({**about, "train": {**about["train"], "start_from": None}}))  # type: ignore[no-any-return]


def _read(path: Path) -> dict[str, Any] | None:
    try:
        values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} cannot be read ({error})", change="remove its folder and run again") from None
    return values


def _digest(rows: Sequence[Any]) -> str:
    return hashlib.sha256(repr(rows).encode("utf-8", "surrogatepass")).hexdigest()[:16]
