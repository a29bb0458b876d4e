"""All tasks, one after the other: what fails is told and the rest goes on, what is finished is kept."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from cypher.apps.superglue.benchmark import TASKS, BenchmarkTask, is_labelled, read_rows
from cypher.apps.superglue.learn import Show, ask, learn, recipe_of
from cypher.apps.superglue.metrics import benchmark_score, score, task_score
from cypher.apps.superglue.parts import find_test_file, task_parts
from cypher.apps.superglue.predictions import majority
from cypher.apps.superglue.settings import SEVERAL_SEEDS, Profile, in_order, settings_of
from cypher.apps.superglue.table import SCORES_FILE, read_scores
from cypher.config import supports
from cypher.errors import ConfigError, CypherError
from cypher.files import write_text
from cypher.models.load import load_model


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is to be run.

    Args:
        tasks: In the order of the leaderboard.
        folders: Of data.
        model: Name of the weights.
        adapter: Name of the method, or ``none``.
        few_shot: Learn from a few rows.
        profile: ``quick`` or ``full``.
        seeds: The first is every task's; COPA, CB and WSC take all.
        output: Folder of the run.
    """

    tasks: Sequence[BenchmarkTask]
    folders: Sequence[Path]
    model: str
    adapter: str
    few_shot: bool
    profile: Profile
    seeds: Sequence[int]
    output: Path


def run(plan: Plan, *, show: Show | None = None, tell: Callable[[str], None] | None = None) -> dict[str, Any]:
    """Learn every task of the plan, those first that others go on from, and write ``scores.json``.

    Args:
        plan: What to do.
        show: Draws progress.
        tell: Gets a line for each task that is done or has failed.

    Returns:
        The content of ``scores.json``: ``score`` (``None`` unless all eight are there), ``tasks``, and ``failed`` with
        the reason of each task of this plan that could not be finished.

    Raises:
        ConfigError: The output folder holds a run of another model or adapter or is in use, or the adapter is unknown.
        ModelError: The weights cannot be found.
    """
    with _alone(plan.output):
        return _run(plan, show, tell or (lambda line: None))


def _run(plan: Plan, show: Show | None, tell: Callable[[str], None]) -> dict[str, Any]:
    about = {
        "model": plan.model,
        "adapter": plan.adapter,
        "few_shot": plan.few_shot,
        "profile": plan.profile,
        "data": [str(folder) for folder in plan.folders],
    }
    tasks = _claim(plan.output, about)
    _check_model(plan)
    failed: dict[str, str] = {}
    for key in in_order([task.key for task in _with_diagnostics(plan)]):
        task = TASKS[key]
        try:
            if task.diagnostic_of is None:
                tasks[task.key] = _learn_task(task, plan, show)
            else:
                tasks[task.key] = _diagnose(task, plan)
            shown = ", ".join(f"{name} {value:.3f}" for name, value in tasks[task.key]["metrics"].items())
            tell(f"{task.name}: {shown} ({tasks[task.key]['seconds']:.0f} s)")
        except CypherError as error:
            tasks.pop(task.key, None)
            failed[task.key] = str(error)
            tell(f"{task.name} failed: {error}")
        # After every task: an interruption loses none that is finished.
        scores = _write(plan.output, about, tasks, failed)
    return scores


@contextmanager
def _alone(output: Path) -> Iterator[None]:
    """Two processes in one folder would each take the other's checkpoints away."""
    output.mkdir(parents=True, exist_ok=True)
    lock = FileLock(output / "run.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise ConfigError(
            f"another process is running in {output}", change="wait for it, end it, or choose another --output"
        ) from None
    try:
        yield
    finally:
        lock.release()


def task_folder(output: Path, key: str, seed: int) -> Path:
    """Where a task with one seed is learnt."""
    return output / key / f"seed-{seed}"


def best_folder(output: Path, key: str) -> Path | None:
    """The finished seed of a task that did best on the rows to choose by; ``None`` where there is none.

    Where nothing was held out the seeds are told apart by the training rows, which all of them know by heart: of
    equals it is the first.
    """
    found = [
        (json.loads(path.read_text(encoding="utf-8"))["chosen"], path.parent)
        for path in sorted((output / key).glob("seed-*/scores.json"))
    ]
    return max(found, key=lambda pair: pair[0])[1] if found else None


def predictor(run_folder: Path) -> Callable[[BenchmarkTask, Sequence[Any]], list[Any] | None]:
    """Answers rows by what a run has learnt; a diagnostic's by RTE's model.

    Raises:
        DataError: The folder holds no run.
    """
    read_scores(run_folder)

    def predict(task: BenchmarkTask, rows: Sequence[Any]) -> list[Any] | None:
        folder = best_folder(run_folder, task.diagnostic_of or task.key)
        return None if folder is None else ask(task, rows, folder=folder)

    return predict


def _with_diagnostics(plan: Plan) -> list[BenchmarkTask]:
    """The tasks of the plan, and the diagnostics of those that have some in the data."""
    keys = [task.key for task in plan.tasks]
    beside = [
        task
        for task in TASKS.values()
        if task.diagnostic_of in keys and task.key not in keys and find_test_file(plan.folders, task)
    ]
    return [*plan.tasks, *beside]


def _check_model(plan: Plan) -> None:
    """What no task could be learnt with is refused before the first of them."""
    recipe = recipe_of(
        TASKS["rte"],
        settings_of("rte", plan.profile),
        model=plan.model,
        adapter=plan.adapter,
        seed=plan.seeds[0],
        folder=plan.output,
    )
    architecture = load_model(plan.model).architecture.name
    method = "none" if recipe.adapter is None else recipe.adapter.method
    for kind in ("classify", "classify_span_pair", "judge_candidates"):
        if not (support := supports(model=architecture, adapter=method, task=kind)):
            raise ConfigError(f"{plan.model} with --adapter {plan.adapter}: {support.reason}")


def _learn_task(task: BenchmarkTask, plan: Plan, show: Show | None) -> dict[str, Any]:
    settings = settings_of(task.key, plan.profile)
    hold_out = settings.evaluations_per_epoch > 0
    parts = task_parts(plan.folders, task, few_shot=plan.few_shot, hold_out=hold_out)
    seeds = plan.seeds if task.key in SEVERAL_SEEDS else plan.seeds[:1]
    first = None if settings.start_from is None else best_folder(plan.output, settings.start_from)
    results = {
        seed: learn(
            task,
            parts,
            recipe_of(task, settings, model=plan.model, adapter=plan.adapter, seed=seed, folder=folder, first=first),
            settings,
            folder=folder,
            show=show,
        )
        for seed in seeds
        for folder in [task_folder(plan.output, task.key, seed)]
    }
    metrics_of = [result["metrics"] for result in results.values()]
    metrics = {name: sum(one[name] for one in metrics_of) / len(metrics_of) for name in metrics_of[0]}
    found = majority(task, parts.train).predict(parts.report)
    return {
        "score": task_score(task, metrics),
        "metrics": metrics,
        "standard_error": _standard_errors(metrics_of),
        "majority": score(task, parts.report, found),
        "seeds": {str(seed): result["metrics"] for seed, result in results.items()},
        "rows": results[seeds[0]]["rows"],
        "origin": parts.origin,
        "seconds": sum(result["seconds"] for result in results.values()),
    }


def _standard_errors(metrics_of: Sequence[Mapping[str, float]]) -> dict[str, float] | None:
    """Of the mean over seeds, by metric; ``None`` for a single seed.

    Example:
        >>> _standard_errors([{"accuracy": 0.5}, {"accuracy": 0.7}])
        {'accuracy': 0.1}
    """
    n = len(metrics_of)
    if n < 2:
        return None
    errors = {}
    for name in metrics_of[0]:
        values = [one[name] for one in metrics_of]
        mean = sum(values) / n
        errors[name] = round(math.sqrt(sum((value - mean) ** 2 for value in values) / (n - 1) / n), 10)
    return errors


def _diagnose(task: BenchmarkTask, plan: Plan) -> dict[str, Any]:
    assert task.diagnostic_of is not None
    trained = TASKS[task.diagnostic_of]
    path, folder = find_test_file(plan.folders, task), best_folder(plan.output, task.diagnostic_of)
    if path is None:
        raise ConfigError(f"{task.name}: there is no {task.name}.jsonl in the data", change="name its folder by --data")
    if folder is None:
        raise ConfigError(f"{task.name} is answered by {trained.name}, which is not learnt", change="add it to --tasks")
    rows = read_rows(task, path)
    unlabelled = sum(not is_labelled(row) for row in rows)
    if unlabelled:
        raise ConfigError(f"{path}: {unlabelled} of {len(rows)} rows have no label to score by")
    rest = majority(trained, task_parts(plan.folders, trained, few_shot=plan.few_shot).train)
    metrics = score(task, rows, ask(task, rows, folder=folder))
    return {
        "score": task_score(task, metrics),
        "metrics": metrics,
        "standard_error": None,
        "majority": score(task, rows, rest.predict(rows)),
        "seeds": {folder.name.removeprefix("seed-"): metrics},
        "rows": {"train": 0, "choose": 0, "report": len(rows)},
        "origin": {"report": path.name},
        "seconds": 0.0,
    }


def _claim(output: Path, about: Mapping[str, Any]) -> dict[str, Any]:
    """The tasks that earlier sittings have finished.

    Raises:
        ConfigError: They were of another model, adapter or profile.
    """
    if not (output / SCORES_FILE).exists():
        return {}
    before = read_scores(output)
    different = [key for key in ("model", "adapter", "few_shot", "profile") if before.get(key) != about[key]]
    if different:
        given = ", ".join(f"{key} {before.get(key)}" for key in different)
        raise ConfigError(f"{output} holds a run with {given}", change="choose another --output, or remove that folder")
    tasks: dict[str, Any] = before["tasks"]
    return tasks


def _write(
    output: Path, about: Mapping[str, Any], tasks: Mapping[str, Any], failed: Mapping[str, str]
) -> dict[str, Any]:
    ordered = {key: tasks[key] for key in TASKS if key in tasks}
    scores = {
        **about,
        "score": benchmark_score({key: task["metrics"] for key, task in ordered.items()}),
        "majority_score": benchmark_score({key: task["majority"] for key, task in ordered.items()}),
        "tasks": ordered,
        "failed": dict(failed),
    }
    write_text(output / SCORES_FILE, json.dumps(scores, indent=1) + "\n")
    return scores
