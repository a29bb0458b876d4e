"""A trained task on disk: its adapter or its whole model, its head, and how to read what it predicts."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from cypher.adapters.folder import load_adapter, model_of, read_json, save_adapter
from cypher.config import AdapterConfig
from cypher.config.section import parse
from cypher.errors import ConfigError, ModelError, first_line
from cypher.files import write_text
from cypher.hub.weights import read_safetensors, write_safetensors
from cypher.models.headed import HeadedModel
from cypher.models.load import LoadedModel, export_model, load_model
from cypher.tasks.arranged_adapters import ArrangedAdapters, arrangement_model, load_arrangement, save_arrangement
from cypher.tasks.find_reader import ARRANGEMENT
from cypher.tasks.registry import kind_of
from cypher.train.task import Task


@dataclass(frozen=True, kw_only=True)
class TrainedTask:
    """A model that does a task.

    Args:
        model: In evaluation mode, adapter attached.
        task: Rows to batches, logits to predictions.
        config: It was built from.
        calibration: What the task wanted remembered beside the weights.
        loaded: The model it stands on.
        columns: Field of the task → column of the files it was trained on.
    """

    model: HeadedModel
    task: Task[Any, Any, Any]
    config: Any
    calibration: Mapping[str, Any]
    loaded: LoadedModel
    columns: Mapping[str, str] = field(default_factory=dict)


def save_task(
    folder: Path,
    trained: TrainedTask,
    *,
    adapter_name: str,
    adapter: AdapterConfig | None,
    model_name: str,
    arranged: ArrangedAdapters | None = None,
) -> None:
    """Write adapter, head and calibration, in fp16 and JSON; without an adapter the whole model goes to ``model/``.

    Args:
        folder: Made if it is absent; a task in it is replaced.
        trained: What to write.
        adapter_name: It is attached under.
        adapter: Its configuration; ``None`` when every weight was trained.
        model_name: What was trained on, as the catalogue names it.
        arranged: How several adapters work together.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if arranged is not None and arranged.frozen:
        save_arrangement(folder, trained.model.model, arranged, adapter=adapter, model_name=model_name)
    elif adapter is not None:
        save_adapter(folder, trained.model.model, adapter_name, config=adapter, model_name=model_name)
    else:
        shutil.rmtree(folder / "model", ignore_errors=True)
        export_model(trained.loaded, folder / "model")
    write_safetensors(
        folder / "model_head.safetensors",
        {name: value.to(torch.float16) for name, value in trained.model.head.state_dict().items()},
    )
    about = {
        "kind": trained.task.kind,
        "config": trained.config.model_dump(mode="json"),
        "calibration": dict(trained.calibration),
    }
    if trained.columns:
        about["columns"] = dict(trained.columns)
    write_text(folder / "head_config.json", json.dumps(about, indent=1) + "\n")


def load_task(folder: Path, *, offline: bool | None = None) -> TrainedTask:
    """Load a saved task onto the model it names.

    Raises:
        ModelError: The folder holds no trained task, or its model cannot be found.
    """
    about = read_json(folder / "head_config.json")
    path = folder / "head_config.json"
    try:
        kind = kind_of(str(about.get("kind", "extract_span")))
        config = parse(kind.config, about["config"], where="its config")
        calibration, columns = dict(about["calibration"]), dict(about.get("columns", {}))
    except (KeyError, TypeError, ValueError, ConfigError) as error:
        raise ModelError(f"{path} is no trained task's ({first_line(error)})") from error
    if (folder / ARRANGEMENT).exists():
        loaded = load_model(arrangement_model(folder), offline=offline)
        load_arrangement(folder, loaded)
    elif (folder / "adapter_config.json").exists():
        loaded = load_model(model_of(folder), offline=offline)
        load_adapter(folder, loaded.model)
    else:
        # Beside the head where an adapter was merged, so that transformers loads the same folder.
        whole = folder if (folder / "config.json").exists() else folder / "model"
        loaded = load_model(str(whole), offline=offline)
    task = kind.build(config, loaded)
    head = task.head(loaded.model)
    try:
        head.load_state_dict(
            {name: value.float() for name, value in read_safetensors(folder / "model_head.safetensors").items()}
        )
    except RuntimeError as error:
        raise ModelError(
            f"{folder / 'model_head.safetensors'} does not fit the model", needed="its own head"
        ) from error
    return TrainedTask(
        model=HeadedModel(loaded.model, head).eval(),
        task=task,
        config=config,
        calibration=calibration,
        loaded=loaded,
        columns=columns,
    )
