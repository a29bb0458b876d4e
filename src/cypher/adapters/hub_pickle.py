"""Pickles of AdapterHub's library to safetensors: the one place that reads a pickle, and only as plain tensors."""

from __future__ import annotations

import pickle
import shutil
from pathlib import Path

import torch
from torch import Tensor

from cypher.adapters.hub_folder import PICKLES
from cypher.errors import ConfigError, ModelError, first_line
from cypher.hub.weights import write_safetensors


def has_pickles(folder: Path) -> bool:
    """Whether a folder, or one of its sub-folders, keeps weights that are pickles alone."""
    return bool(_pickles(folder))


def convert_pickles(folder: Path, into: Path) -> list[Path]:
    """Write the folder again with safetensors instead of pickles; its configurations are copied.

    The pickles are read by ``torch.load(weights_only=True)``, which makes tensors and runs no code of theirs, and by
    nothing else.

    Args:
        folder: Of the library: an adapter, a fusion, a head, or a set-up of them.
        into: New or empty.

    Returns:
        The files that were converted.

    Raises:
        ConfigError: ``into`` has files.
        ModelError: A pickle holds other things than tensors.
    """
    if into.exists() and any(into.iterdir()):
        raise ConfigError(f"{into} is not empty", change="give a new folder")
    found = _pickles(folder)
    tensors = {path: _read(path) for path in found}
    for path in folder.rglob("*"):
        if path.suffix in (".json", ".safetensors", ".md") and path.is_file():
            target = into / path.relative_to(folder)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
    for path, target in found.items():
        write_safetensors(into / target, tensors[path])
    return list(found)


def _pickles(folder: Path) -> dict[Path, Path]:
    """Each pickle with the place of its safetensors, relative to the folder; those that have them already are left."""
    return {
        path: target.relative_to(folder)
        for safe, name in PICKLES.items()
        for path in sorted(folder.rglob(name))
        if not (target := path.with_name(safe)).exists()
    }


def _read(path: Path) -> dict[str, Tensor]:
    try:
        tensors = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError) as error:
        raise ModelError(f"{path} holds other things than tensors ({first_line(error)})") from None
    if not isinstance(tensors, dict) or not all(isinstance(value, Tensor) for value in tensors.values()):
        raise ModelError(f"{path} holds other things than tensors", needed="a dictionary of them")
    return dict(tensors)
