"""Adapters on disk: ``adapter_config.json`` and ``adapter.safetensors`` in a folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from cypher import files
from cypher.adapters.adapter import PLACES, Adapter
from cypher.adapters.methods import adapter_of
from cypher.config import AdapterConfig, PromptConfig, UnionConfig, adapter_config
from cypher.errors import ConfigError, ModelError, first_line
from cypher.files import write_text
from cypher.hub.weights import read_safetensors, write_safetensors
from cypher.models.model import Model


def save_adapter(
    folder: Path,
    model: Model,
    name: str,
    *,
    config: AdapterConfig,
    model_name: str,
    dtype: torch.dtype = torch.float16,
) -> None:
    """Write what is attached as ``name``.

    Args:
        folder: Made if it is absent.
        model: Holds the adapter.
        name: It is attached under; the file calls its tensors by their path with this name.
        config: Of the method.
        model_name: Model it was trained on, as the catalogue names it, or its folder; ``../NAME`` is looked for
            beside ``folder`` first, so that both can be moved together.
        dtype: Of the file; fp16 halves it and keeps three significant digits.
    """
    parameters = Adapter.parameters_of(model, name)
    write_safetensors(folder / "adapter.safetensors", {path: value.to(dtype) for path, value in parameters.items()})
    about = {
        "name": name,
        "model_name": model_name,
        "hidden_size": model.width,
        "config": config.model_dump(mode="json"),
    }
    write_text(folder / "adapter_config.json", json.dumps(about, indent=1) + "\n")


def load_adapter(folder: Path, model: Model, *, name: str | None = None) -> str:
    """Attach a saved adapter.

    Args:
        folder: As :func:`save_adapter` writes it.
        model: Of the shape it was trained on.
        name: To attach it under; ``None`` takes the folder's.

    Returns:
        The name it is attached under.

    Raises:
        ModelError: The folder holds no adapter, or one for a model of another shape.
    """
    about = read_json(folder / "adapter_config.json")
    try:
        config, saved_as = without_text(adapter_config(about["config"])), str(about["name"])
        width = about["hidden_size"]
    except (KeyError, TypeError, ValueError, ConfigError) as error:
        raise ModelError(f"{folder / 'adapter_config.json'} is no adapter's ({first_line(error)})") from error
    name = name or saved_as
    if width != model.width:
        raise ModelError(
            f"{folder} is for width {width} ({model_of(folder)})",
            needed=f"an adapter for width {model.width}",
        )
    saved = {
        _renamed(path, saved_as, name): value
        for path, value in read_safetensors(folder / "adapter.safetensors").items()
    }
    adapter_of(config).attach(model, name)
    parameters = Adapter.parameters_of(model, name)
    different = sorted(
        {path for path, value in parameters.items() if path not in saved or saved[path].shape != value.shape}
        | (set(saved) - set(parameters))
    )
    if different:
        Adapter.detach(model, name)
        raise ModelError(f"{folder}: {different[0]} does not fit the model", needed=f"a {model_of(folder)}")
    with torch.no_grad():
        for path, value in parameters.items():
            value.copy_(saved[path])
    return name


def _renamed(path: str, old: str, new: str) -> str:
    for place in PLACES:
        path = path.replace(f".{place}.{old}.", f".{place}.{new}.", 1)
    return path


def without_text(config: AdapterConfig) -> AdapterConfig:
    """The same without the text that prompts started at, which takes a tokenizer: their vectors are in the file."""
    if isinstance(config, PromptConfig):
        return config.model_copy(update={"text": None})
    if isinstance(config, UnionConfig):
        return config.model_copy(update={"parts": tuple(without_text(part) for part in config.parts)})
    return config


def model_of(folder: Path) -> str:
    """The model a saved adapter was trained on, as the catalogue names it.

    Raises:
        ModelError: The folder holds no adapter.
    """
    path = folder / "adapter_config.json"
    try:
        return seen_from(folder, str(read_json(path)["model_name"]))
    except KeyError as error:
        raise ModelError(f"{path} is no adapter's ({first_line(error)})") from error


def seen_from(folder: Path, model_name: str) -> str:
    """A model's name as it is, or the folder that ``../NAME`` is when seen from the adapter's."""
    beside = folder / model_name
    return str(beside.resolve()) if model_name.startswith("../") and beside.is_dir() else model_name


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object.

    Raises:
        ModelError: The file is missing or is none.
    """
    return files.read_json(path, kind=ModelError, needed="the folder of a saved adapter")
