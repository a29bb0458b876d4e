"""Checkpoints: what a run needs to go on as if nothing had happened. Safetensors and JSON, never pickles.

A checkpoint is written beside and renamed when it is whole, so a crash while saving leaves the last good one.
"""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from cypher.errors import DataError, ModelError, first_line
from cypher.files import read_json, write_text
from cypher.hub.cache import writing
from cypher.hub.weights import read_safetensors, write_safetensors
from cypher.models.headed import HeadedModel


@dataclass(frozen=True, kw_only=True)
class Position:
    """Where a run stands.

    Args:
        step: Optimiser steps done.
        evaluated_step: Of them when the development rows were last scored.
        best_score: Best development score so far; ``None`` before the first evaluation.
        stale: Evaluations since then.
        seconds: Spent training, over all sittings.
        rows: Digest of the training and development rows; ``None`` before the first checkpoint.
    """

    step: int = 0
    evaluated_step: int = 0
    best_score: float | None = None
    stale: int = 0
    seconds: float = 0.0
    rows: str | None = None


def trained_tensors(model: HeadedModel) -> dict[str, Tensor]:
    """The parameters that are trained, by name."""
    return {name: parameter.detach() for name, parameter in model.named_parameters() if parameter.requires_grad}


def load_trained(model: HeadedModel, path: Path) -> None:
    """Copy trained parameters back from a file.

    Args:
        model: With the same adapter and head; its trained parameters are overwritten.
        path: Written by a run, such as ``best.safetensors``.

    Raises:
        ModelError: The file is of another model or adapter.
    """
    saved, own = read_safetensors(path), trained_tensors(model)
    if {name: value.shape for name, value in saved.items()} != {name: value.shape for name, value in own.items()}:
        different = sorted(set(saved) ^ set(own))[:3] or ["shapes differ"]
        raise ModelError(f"{path} does not fit this recipe ({', '.join(different)})", change="choose another run name")
    for name, value in saved.items():
        own[name].copy_(value)


def start_from(run: Path, model: HeadedModel) -> None:
    """Copy the best weights of another run; its head too, where the two heads have one shape.

    Args:
        run: Its folder; it need not be finished, but must have been evaluated once.
        model: With the same adapter; every parameter that is trained outside of the head must be in the run.

    Raises:
        ModelError: The folder holds no such run, or one whose adapter has other tensors.
    """
    path = run / "best.safetensors"
    if not path.is_file():
        raise ModelError(
            f"{run} holds no weights of a run", needed="a folder in which cypher train has evaluated at least once"
        )
    saved, own = read_safetensors(path), trained_tensors(model)
    head = {name for name in own if name.startswith("head.")}
    different = {name for name, value in own.items() if name not in saved or saved[name].shape != value.shape}
    different |= {name for name in saved if name not in own and not name.startswith("head.")}
    if foreign := sorted(different - head):
        raise ModelError(
            f"{path} does not fit this recipe ({foreign[0]})", needed="a run of the same model and adapter"
        )
    for name in own if not different else own.keys() - head:
        own[name].copy_(saved[name])


def save_checkpoint(folder: Path, model: HeadedModel, optimiser: torch.optim.Optimizer, position: Position) -> None:
    """Write a checkpoint, then remove older ones: at no moment is there none.

    Args:
        folder: Of all checkpoints of the run; gets ``step-N``, after an evaluation ``step-N-evaluated``.
        model: Its trained parameters are kept.
        optimiser: Its moments are kept.
        position: Of the run, between two steps.

    Raises:
        DataError: The folder cannot be written, or the disk is full.
    """
    is_evaluated = position.step and position.evaluated_step == position.step
    final = folder / f"step-{position.step:08d}{'-evaluated' if is_evaluated else ''}"
    if final.exists():  # the same position is the same content, and replacing it would leave a moment without any
        return
    with writing(folder, kind=DataError, otherwise="choose another folder with --runs"):
        _write(folder, final, model, optimiser, position)


def _write(folder: Path, final: Path, model: HeadedModel, optimiser: torch.optim.Optimizer, position: Position) -> None:
    partial = folder / f".{final.name}.{os.getpid()}"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    write_safetensors(partial / "trained.safetensors", trained_tensors(model))
    moments = {
        f"{index}.{name}": value.reshape(1) if value.ndim == 0 else value
        for index, state in optimiser.state_dict()["state"].items()
        for name, value in state.items()
    }
    write_safetensors(partial / "optimiser.safetensors", {**moments, "random_state": torch.get_rng_state()})
    write_text(partial / "position.json", json.dumps(asdict(position)))
    partial.rename(final)
    for other in (*folder.glob("step-*"), *folder.glob(".step-*")):
        if other != final and other.is_dir():
            shutil.rmtree(other)


def newest_checkpoint(folder: Path) -> Path | None:
    """The checkpoint to go on from; ``None`` where none was ever whole."""
    return max((path for path in folder.glob("step-*") if path.is_dir()), default=None)


def load_checkpoint(folder: Path, model: HeadedModel, optimiser: torch.optim.Optimizer) -> Position:
    """Continue from the newest checkpoint.

    Args:
        folder: Of all checkpoints of the run.
        model: Gets the trained parameters.
        optimiser: Gets its moments; the random state comes back, too.

    Returns:
        Where the run stands: at the start if there is no checkpoint.

    Raises:
        ModelError: The checkpoint is broken, or of another model or adapter.
    """
    newest = newest_checkpoint(folder)
    if newest is None:
        return Position()
    path = newest / "position.json"
    values = read_json(path, kind=ModelError, needed="a whole checkpoint")
    load_trained(model, newest / "trained.safetensors")
    saved = read_safetensors(newest / "optimiser.safetensors")
    try:
        torch.set_rng_state(saved.pop("random_state"))
        state: dict[int, dict[str, Tensor]] = {}
        for key, value in saved.items():
            index, name = key.split(".", 1)
            state.setdefault(int(index), {})[name] = value.reshape(()) if name == "step" else value
        optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})
        return Position(**values)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise ModelError(
            f"{newest} is no checkpoint of this version ({first_line(error)})",
            change="remove the run's folder, or choose another --set name=…",
        ) from error
