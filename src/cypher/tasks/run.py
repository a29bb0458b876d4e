"""From a recipe to a run: everything that is put together before the loop, and what is kept after it."""

from __future__ import annotations

import json
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

from cypher.adapters.adapter import freeze_all_but
from cypher.adapters.methods import adapter_of
from cypher.config import ParallelPlan, Recipe, supports
from cypher.data.fetch import locate
from cypher.errors import ConfigError, DataError
from cypher.files import read_json, write_text
from cypher.hub.cache import writing
from cypher.hub.download import FetchProgress
from cypher.hub.fetch import resolve
from cypher.layers.precision import fastest_precision
from cypher.models.fresh import write_fresh_model
from cypher.models.headed import HeadedModel
from cypher.models.load import READ_FORMATS, Dropout, LoadedModel, load_model
from cypher.parallel.parallelise import parallelise
from cypher.parallel.validate import validate
from cypher.parallel.world import World, joined
from cypher.tasks.arranged_adapters import ArrangedAdapters, arrange, check_depth, keep_adapters, set_to_work
from cypher.tasks.registry import kind_of
from cypher.tasks.task_folder import TrainedTask, save_task
from cypher.tasks.task_kind import TextSource
from cypher.train.checkpoint import load_trained, newest_checkpoint, start_from
from cypher.train.loop import TrainResult, train
from cypher.train.progress import RunWatcher, read_metrics
from cypher.train.task import Task, may_be_cut

# The name under which a recipe's adapter is attached while it is trained.
ADAPTER = "trained"


@dataclass(frozen=True, kw_only=True)
class Run:
    """A finished run.

    Args:
        folder: ``runs/NAME``, with ``recipe.toml``, ``metrics.jsonl``, ``environment.json``, ``curves.png`` and
            ``task/``, or ``reader/`` of span extraction.
        result: Scores of the best checkpoint, steps and seconds.
        skipped: Rows that were left out because they could not be read.
    """

    folder: Path
    result: TrainResult
    skipped: int = 0


def fetch_parts(recipe: Recipe, *, progress: FetchProgress | None = None) -> None:
    """Fetch what a recipe names and this machine does not have; ``run_recipe`` does it too, and says nothing.

    Args:
        recipe: Its model and data sets are wanted.
        progress: Told what is being fetched, bytes so far and bytes in all.

    Raises:
        DataError: A data set cannot be had, or may not be trained on.
        ModelError: The model cannot be had.
    """
    for name in recipe.data.train:
        locate(name, training=True, progress=progress)
    for name in recipe.data.development:
        locate(name, progress=progress)
    if recipe.model.fresh is None:
        resolve(recipe.model.name, formats=READ_FORMATS, progress=progress)


def run_recipe(recipe: Recipe, *, folder: Path, progress: RunWatcher | None = None) -> Run:
    """Train what the recipe says, or go on where an earlier sitting ended.

    Args:
        recipe: Everything the run depends on.
        folder: Of the run; an unfinished one of the same recipe is resumed.
        progress: Who watches.

    Raises:
        ConfigError: The folder holds a run of another recipe, another process is training in it, or the parts do not
            combine.
        DataError: The folder cannot be written, there is nothing to learn from, or the rows are no longer those that an
            unfinished run began with.
        ModelError: The model cannot be found or read, or a checkpoint is broken.
    """
    loaded, architecture = None, ""
    if recipe.model.fresh is None:
        loaded = _load(recipe, recipe.model.name)
        architecture = loaded.architecture.name
    else:
        architecture = recipe.model.fresh.architecture
    adapter = "none" if recipe.adapter is None else recipe.adapter.method
    for arrangement in _arrangements(recipe):
        support = supports(model=architecture, adapter=adapter, task=recipe.task.kind, arrangement=arrangement)
        if not support:
            raise ConfigError(
                f"{architecture} with {adapter} on {recipe.task.kind} does not work: {support.reason}",
                change="see cypher models matrix",
            )
    if loaded is not None:
        _require_positions(recipe, loaded)
    with joined(recipe.parallel) as world, _alone(folder, world):
        if world.is_main:
            _claim(folder, recipe)
        if loaded is None:
            if world.is_main:
                _write_fresh(recipe, folder)
            world.wait()
            loaded = _load(recipe, str(folder / "fresh"))
            _require_positions(recipe, loaded)
        return _run(recipe, loaded, folder, progress, world)


def _arrangements(recipe: Recipe) -> list[str]:
    """What is done with the recipe's own adapter; that of a fusion is asked of each that is fused."""
    arrangement = recipe.arrangement
    if recipe.adapter is None or arrangement is None:
        return ["none"]
    wanted = {"stack": arrangement.stack_on is not None, "drop": arrangement.drop_in_training > 0}
    return ["none", *(name for name, is_wanted in wanted.items() if is_wanted)]


def _load(recipe: Recipe, name: str) -> LoadedModel:
    dropout = Dropout(dropout=recipe.model.dropout, attention_dropout=recipe.model.attention_dropout)
    return load_model(name, dropout=dropout)


def _write_fresh(recipe: Recipe, folder: Path) -> None:
    """The run's own model with random weights, made once: a resumed run finds it with its tokenizer.

    Raises:
        ConfigError: A tokenizer is to be trained for a task whose rows are not read as texts.
    """
    config, place = recipe.model.fresh, folder / "fresh"
    assert config is not None
    if not (folder / "environment.json").exists() or not (place / "config.json").exists():
        rows = kind_of(recipe.task.kind).rows
        if config.tokenizer is None and not isinstance(rows, TextSource):
            raise ConfigError(
                f"model.fresh without a tokenizer for {recipe.task.kind}", change="set model.fresh.tokenizer = a model"
            )
        texts = rows.texts(recipe) if isinstance(rows, TextSource) else ()
        write_fresh_model(place, config, texts, seed=recipe.train.seed)


def _run(recipe: Recipe, loaded: LoadedModel, folder: Path, progress: RunWatcher | None, world: World) -> Run:
    kind = kind_of(recipe.task.kind)
    prepared = kind.rows.prepare(recipe, loaded)
    torch.manual_seed(recipe.train.seed)
    if not world.is_main:
        world.wait()  # for what the main process keeps in the folder
    model, task, arranged = build(recipe, loaded, prepared.config, folder=folder, keeps=world.is_main)
    if world.is_main:
        world.wait()
    validate(
        recipe.parallel,
        model.model,
        batch_size=recipe.train.batch_size,
        accumulation=recipe.train.accumulation,
        whole_model=task.whole_model,
        whole_batch=not may_be_cut(task),
    )
    # Before the rows are made, so that a wrong folder costs no time; a resumed run has weights of its own.
    if recipe.train.start_from is not None and newest_checkpoint(folder / "checkpoints") is None:
        _start_from(Path(recipe.train.start_from), recipe, model)
    rows, development = prepared.rows()
    precision = world.agreed(_precision(recipe, folder) if world.is_main else "")
    if world.is_main:
        write_text(folder / "environment.json", json.dumps(_environment(precision, world), indent=1))
    result = train(
        model,
        task,
        rows,
        development,
        config=recipe.train,
        dtype=torch.bfloat16 if precision == "bf16" else torch.float32,
        folder=folder,
        progress=progress,
        world=world,
    )
    if world.is_main:
        if world.plan.world > 1:  # what is left of the model here may be a part of it
            loaded = _load(recipe, recipe.model.name if recipe.model.fresh is None else str(folder / "fresh"))
            model, task, arranged = build(recipe, loaded, prepared.config, folder=folder, keeps=False)
            load_trained(parallelise(model), folder / "best.safetensors")
            model.eval()
        from cypher.report import curves  # matplotlib is heavy and only needed here

        rows_of_metrics = _flat(read_metrics(folder / "metrics.jsonl"))
        curves(rows_of_metrics, folder / "curves.png", metrics=[task.metric], title=recipe.name)
        save_task(
            folder / kind.folder,
            TrainedTask(
                model=model,
                task=task,
                config=prepared.config,
                calibration=result.calibration,
                loaded=loaded,
                columns=recipe.data.columns,
            ),
            adapter_name=ADAPTER,
            adapter=recipe.adapter,
            model_name="../fresh" if recipe.model.fresh is not None else recipe.model.name,  # seen from its folder
            arranged=arranged,
        )
    world.wait()
    return Run(folder=folder, result=result, skipped=prepared.skipped)


def build(
    recipe: Recipe, loaded: LoadedModel, config: Any, *, folder: Path, keeps: bool = True
) -> tuple[HeadedModel, Task[Any, Any, Any], ArrangedAdapters | None]:
    """The model with adapters and head, ready to be trained, the task that ``config`` describes, and how adapters that
    work together do so; ``keeps``: adapters that a recipe names are copied first, rather than looked for.
    """
    task = kind_of(recipe.task.kind).build(config, loaded)
    arranged, drop_in_training = None, 0
    if recipe.arrangement is not None:
        frozen = keep_adapters(
            recipe.arrangement,
            folder / "adapters",
            model_name=recipe.model.name,
            taken=ADAPTER,
            has_begun=not keeps or (folder / "environment.json").exists(),
        )
        arranged = arrange(loaded, recipe.arrangement, frozen, trained=ADAPTER, task=recipe.task.kind)
        drop_in_training = recipe.arrangement.drop_in_training
    if recipe.adapter is not None:
        adapter_of(recipe.adapter, tokenizer=loaded.tokenizer).attach(loaded.model, ADAPTER)
        freeze_all_but(loaded.model, ADAPTER)
    if arranged is not None:
        set_to_work(loaded.model, arranged, drop_in_training=drop_in_training)
    headed = HeadedModel(loaded.model, task.head(loaded.model))
    check_depth(headed, drop_in_training)
    return headed, task, arranged


def _start_from(run: Path, recipe: Recipe, model: HeadedModel) -> None:
    """Go on from another run's weights, which only mean something on the model they were trained on.

    Raises:
        ConfigError: It was trained on another model or on other trained adapters, or is no run.
        ModelError: It was trained with another adapter.
    """
    other = Recipe.load(run / "recipe.toml")
    if other.model.name != recipe.model.name:
        raise ConfigError(
            f"train.start_from = {str(run)!r}, a run of {other.model.name}",
            needed=f"a run of {recipe.model.name}, this recipe's",
        )
    if _frozen(other) != _frozen(recipe):
        raise ConfigError(
            f"train.start_from = {str(run)!r}, a run with {_frozen(other) or 'no trained adapters'} in [arrangement]",
            needed=f"the same as here, {_frozen(recipe) or 'none'}: what is trained fits what it was trained on",
        )
    start_from(run, model)


def _frozen(recipe: Recipe) -> dict[str, Any]:
    """What a recipe names of trained adapters."""
    if recipe.arrangement is None:
        return {}
    return recipe.arrangement.model_dump(include={"stack_on", "fuse"}, exclude_defaults=True)


def _require_positions(recipe: Recipe, loaded: LoadedModel) -> None:
    """The longest row may come late in an epoch; what cannot be read is refused before the first."""
    positions = loaded.model.max_positions
    if positions is not None and recipe.task.max_length > positions:
        raise ConfigError(
            f"task.max_length = {recipe.task.max_length}",
            needed=f"at most {positions}, the positions of {recipe.model.name}",
            change=f"--set task.max_length={positions}",
        )


def _precision(recipe: Recipe, folder: Path) -> str:
    """The recipe's, or the faster one here, which is measured once a run: a busy machine may find another."""
    if recipe.precision.compute != "auto":
        return recipe.precision.compute
    about = folder / "environment.json"
    return str(read_json(about)["precision"]) if about.exists() else fastest_precision()


@contextmanager
def _alone(folder: Path, world: World) -> Iterator[None]:
    """Two runs in one folder would each take the other's checkpoints away."""
    if not world.is_main:
        yield
        return
    lock = FileLock(folder / "run.lock")
    with writing(folder, kind=DataError, otherwise="choose another folder with --runs"):
        folder.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=0)
        except Timeout:  # an OSError, too
            raise ConfigError(
                f"another process is training in {folder}", change="wait for it, end it, or choose another --set name=…"
            ) from None
    try:
        yield
    finally:
        lock.release()


def _claim(folder: Path, recipe: Recipe) -> None:
    """Write the resolved recipe, or check that the folder's is the same, once anything was learnt by it.

    How the work is divided over processes may change: a run goes on under any plan.
    """
    path, text = folder / "recipe.toml", recipe.to_toml()
    # A recipe that was mended because something in it could not be read is no other run.
    has_begun = (folder / "environment.json").exists()
    if has_begun and path.exists() and _undivided(Recipe.load(path)) != _undivided(recipe):
        raise ConfigError(
            f"{folder} holds a run of another recipe",
            change="choose another --set name=…, or remove that folder",
        )
    write_text(path, text)


def _undivided(recipe: Recipe) -> str:
    """The recipe as it is for one process."""
    return recipe.model_copy(update={"parallel": ParallelPlan()}).to_toml()


def _environment(precision: str, world: World) -> dict[str, Any]:
    return {
        "processes": world.plan.world,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "precision": precision,
    }


def _flat(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows with the scores of evaluations beside the losses of steps."""
    return [{**row, **row.get("scores", {})} for row in rows]
