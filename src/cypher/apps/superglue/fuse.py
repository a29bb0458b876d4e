"""AdapterFusion over a run: whether what the other tasks have learnt helps one of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from cypher.adapters.arrangement import activate
from cypher.adapters.composition import Fuse
from cypher.adapters.folder import load_adapter
from cypher.adapters.fusion import add_fusion, freeze_all_but_fusion
from cypher.apps.superglue.benchmark import TASKS, BenchmarkTask
from cypher.apps.superglue.forms import Answers, form_config, learnable, objective_rows
from cypher.apps.superglue.learn import Show, Watch, sample
from cypher.apps.superglue.metrics import score
from cypher.apps.superglue.parts import task_parts
from cypher.apps.superglue.run import best_folder
from cypher.apps.superglue.settings import settings_of
from cypher.apps.superglue.table import read_scores
from cypher.config import TrainConfig
from cypher.config.section import parse
from cypher.errors import ConfigError
from cypher.layers.precision import fastest_precision
from cypher.models.headed import HeadedModel
from cypher.models.load import load_model
from cypher.tasks.registry import kind_of
from cypher.train.loop import train

RATE = 0.5
"""Peak rate of the fusion's weights as a share of the task's (Pfeiffer et al. 2021, arXiv 2005.00247, take 5e-5 where
adapters had 1e-4)."""


def fuse(run_folder: Path, task: BenchmarkTask, *, seed: int, show: Show | None = None) -> dict[str, Any]:
    """Train a fusion of every adapter of a run, and a fresh head, on one task (Pfeiffer et al. 2021, section 3.2).

    The adapters stay as they are; rows and lengths, passes and what chooses are those of the task in the run.

    Args:
        run_folder: Of a run with a bottleneck or Compacter adapter; ``fusion/TASK/seed-N`` in it gets what is learnt.
        task: One of those that the run has learnt.
        seed: Of the new weights and the order of rows.
        show: Draws progress.

    Returns:
        ``adapters``, the tasks whose adapters were fused; ``metrics`` of the fusion, ``alone`` those of the task's own
        adapter in the run (a mean over its seeds) and ``majority``, on the same rows; ``seconds``.

    Raises:
        ConfigError: The run has not learnt the task and another one, or its adapters cannot be fused.
        DataError: The folder holds no run, or its data is gone.
    """
    scores = read_scores(run_folder)
    learnt = {key: folder for key in TASKS if (folder := best_folder(run_folder, key)) is not None}
    if task.key not in learnt or len(learnt) < 2:
        raise ConfigError(
            f"{run_folder} has learnt {', '.join(learnt) or 'nothing'}",
            needed=f"{task.key} and at least one other task",
        )
    if scores["adapter"] == "none":
        raise ConfigError(f"{run_folder} holds a run without adapters", change="run with --adapter seq_bn")
    settings = settings_of(task.key, scores["profile"])
    parts = task_parts(
        [Path(folder) for folder in scores["data"]],
        task,
        few_shot=scores["few_shot"],
        hold_out=settings.evaluations_per_epoch > 0,
    )
    any_number = task.key == "multirc"
    rows = sample(learnable(objective_rows(parts.train), any_number=any_number), settings.limit)
    choose = sample(learnable(objective_rows(parts.choose), any_number=any_number) or rows, settings.choose_limit)

    loaded = load_model(scores["model"])
    for key, folder in learnt.items():
        load_adapter(folder / "task", loaded.model, name=key)
    tree = Fuse(*learnt)
    torch.manual_seed(seed)
    add_fusion(loaded.model, tree)
    activate(loaded.model, tree)
    freeze_all_but_fusion(loaded.model, tree)
    values = form_config(task, settings)
    kind = kind_of(values["kind"])
    objective = kind.build(parse(kind.config, values, where=f"the form of {task.name}"), loaded)
    model = HeadedModel(loaded.model, objective.head(loaded.model))
    folder = run_folder / "fusion" / task.key / f"seed-{seed}"
    result = train(
        model,
        objective,
        rows,
        choose,
        config=TrainConfig(
            epochs=settings.epochs,
            batch_size=settings.batch_size,
            learning_rate=RATE * settings.learning_rate,
            head_learning_rate=settings.learning_rate,
            evaluations_per_epoch=settings.evaluations_per_epoch,
            patience=settings.patience,
            warmup=0.1,
            seed=seed,
        ),
        dtype=torch.bfloat16 if fastest_precision() == "bf16" else torch.float32,
        folder=folder,
        progress=None if show is None else Watch(f"{task.name} fused, {folder.name}", show),
    )
    metrics = score(task, parts.report, _predictions(task, objective, model, parts.report, result.calibration))
    return {
        "adapters": list(learnt),
        "metrics": metrics,
        "alone": scores["tasks"][task.key]["metrics"],
        "majority": scores["tasks"][task.key]["majority"],
        "seconds": round(result.seconds, 1),
    }


def _predictions(
    task: BenchmarkTask, objective: Any, model: HeadedModel, rows: Sequence[Any], calibration: dict[str, Any]
) -> list[Any]:
    with torch.inference_mode():
        found = objective.predict(model, objective_rows(rows))
    return Answers(task=task, calibration=calibration).predictions(rows, found)
