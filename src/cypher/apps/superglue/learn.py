"""One task with one seed: a recipe and its rows, run, scored, and asked again later."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from cypher.apps.superglue.benchmark import TASKS, BenchmarkTask
from cypher.apps.superglue.forms import Answers, form_config, learnable, objective_rows, table_columns, table_line
from cypher.apps.superglue.metrics import score
from cypher.apps.superglue.parts import Parts
from cypher.apps.superglue.settings import Settings
from cypher.apps.superglue.submission import jsonl, submission_lines
from cypher.config import Recipe
from cypher.config.section import parse
from cypher.errors import ConfigError, ModelError
from cypher.files import read_json, write_text
from cypher.layers.precision import fastest_precision
from cypher.tasks.run import run_recipe
from cypher.tasks.task_folder import load_task

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


def adapter_section(name: str) -> dict[str, Any] | None:
    """The ``[adapter]`` section for the name of a method or preset; ``None`` for ``none``, which trains every weight.

    LoRA goes on all linear layers with rank 32: with a frozen encoder this small, rank is cheap.
    """
    if name == "none":
        return None
    if name == "lora":
        return {"method": "lora", "rank": 32, "alpha": 32.0}
    return {"preset": name}


def recipe_of(
    task: BenchmarkTask,
    settings: Settings,
    *,
    model: str,
    adapter: str,
    seed: int,
    folder: Path,
    first: Path | None = None,
) -> Recipe:
    """The recipe of a task with one seed.

    Args:
        task: Which one.
        settings: How it is learnt.
        model: Name of the weights.
        adapter: Name of the method or preset, or ``none``.
        seed: Of weights and order.
        folder: Of the run, where its rows lie, too.
        first: Folder of another task whose weights this one goes on from.

    Raises:
        ConfigError: No adapter is called so.
    """
    values: dict[str, Any] = {
        "name": f"{task.key}-{folder.name}",
        "model": {"name": model},
        "task": form_config(task, settings),
        "data": {
            "train": [str(folder / "train.jsonl")],
            "development": [str(folder / "choose.jsonl")],
            "columns": table_columns(task),
        },
        "train": {
            "epochs": settings.epochs,
            "batch_size": settings.batch_size,
            "learning_rate": settings.learning_rate,
            "evaluations_per_epoch": settings.evaluations_per_epoch,
            "patience": settings.patience,
            "warmup": 0.1,
            "seed": seed,
        },
    }
    if first is not None:
        values["train"]["start_from"] = str(first)
    if (section := adapter_section(adapter)) is not None:
        values["adapter"] = section
    recipe: Recipe = parse(Recipe, values, where=f"--adapter {adapter}")
    return recipe


def learn(
    task: BenchmarkTask,
    parts: Parts,
    recipe: Recipe,
    settings: Settings,
    *,
    folder: Path,
    show: Show | None = None,
) -> dict[str, Any]:
    """Learn a task, or take what an earlier sitting has finished.

    Args:
        task: Which one.
        parts: Its rows.
        recipe: From :func:`recipe_of`.
        settings: How many of the rows are taken.
        folder: Of this task and seed; an unfinished one is resumed.
        show: Draws progress.

    Returns:
        ``metrics`` on the rows to report on, ``chosen`` on those to choose by, ``rows``, ``steps``, ``seconds``.

    Raises:
        ConfigError: The folder holds a run of other settings or rows.
    """
    any_number = task.key == "multirc"
    rows = sample(learnable(objective_rows(parts.train), any_number=any_number), settings.limit)
    # Where nothing is held out, only the last weights are scored, and any rows will do: they choose nothing.
    held_out = learnable(objective_rows(parts.choose), any_number=any_number) or rows
    choose = sample(held_out, settings.choose_limit)
    digest = hashlib.sha256(repr((rows, choose, parts.report)).encode("utf-8", "surrogatepass")).hexdigest()[:16]
    if (finished := _finished(folder, recipe, digest)) is not None:
        return finished
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / "train.jsonl", jsonl(table_line(row) for row in rows))
    write_text(folder / "choose.jsonl", jsonl(table_line(row) for row in choose))
    watcher = None if show is None else Watch(f"{task.name} {folder.name}", show)
    result = run_recipe(recipe, folder=folder, progress=watcher).result
    predictions = ask(task, parts.report, folder=folder)
    write_text(folder / "predictions.jsonl", jsonl(submission_lines(task, parts.report, predictions)))
    metric = {"classify": recipe.task.model_dump().get("metric"), "judge_candidates": "accuracy"}
    chosen = result.scores["judged" if any_number else metric.get(recipe.task.kind) or "accuracy"]
    scores = {
        "metrics": score(task, parts.report, predictions),
        "chosen": chosen / 100,
        "rows": {"train": len(rows), "choose": len(choose) if parts.choose else 0, "report": len(parts.report)},
        "digest": digest,
        "steps": result.steps,
        "seconds": round(result.seconds, 1),
    }
    write_text(folder / "scores.json", json.dumps(scores, indent=1) + "\n")
    return scores


def ask(task: BenchmarkTask, rows: Sequence[Any], *, folder: Path) -> list[Any]:
    """Predictions of a task that was learnt, for rows with or without labels.

    Args:
        task: Of the rows; a diagnostic is answered by the task it belongs to.
        rows: Of the benchmark.
        folder: Of the learnt task and seed.

    Raises:
        ModelError: The folder holds no finished run.
    """
    trained = load_task(folder / "task")
    precision = fastest_precision()
    trained.model.model.pack("bf16" if precision == "bf16" else "fp32")
    with torch.inference_mode():
        found = trained.task.predict(trained.model, objective_rows(rows))
    learnt = TASKS[task.diagnostic_of] if task.diagnostic_of else task
    return Answers(task=learnt, calibration=trained.calibration).predictions(rows, found)


def sample(rows: list[Any], limit: int | None) -> list[Any]:
    """At most so many rows, the same ones every time, in their order."""
    if limit is None or len(rows) <= limit:
        return rows
    chosen = random.Random(0).sample(range(len(rows)), limit)  # noqa: S311 - a choice of rows, not a secret
    return [rows[place] for place in sorted(chosen)]


def _finished(folder: Path, recipe: Recipe, digest: str) -> dict[str, Any] | None:
    """The scores of a run that is finished; what it went on from may be gone by now."""
    if not (folder / "scores.json").exists():
        return None
    scores: dict[str, Any] = read_json(folder / "scores.json", kind=ModelError, needed="the scores of a run")
    before = Recipe.load(folder / "recipe.toml")
    same = {"start_from": None}
    if (
        before.model_copy(update={"train": before.train.model_copy(update=same)})
        != recipe.model_copy(update={"train": recipe.train.model_copy(update=same)})
        or scores["digest"] != digest
    ):
        raise ConfigError(
            f"{folder} holds a run of another recipe or of other rows",
            change="choose another --output, or remove that folder",
        )
    return scores
