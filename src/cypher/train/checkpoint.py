"""Checkpoints: what a run needs to go on as if nothing had happened. Safetensors and JSON, never pickles.

Weights and the optimiser's moments go by the names of the undivided model, so a run goes on under any plan. Nothing
random is kept: a step's draws follow from its number (:func:`cypher.train.step.seed_step`).
"""

from __future__ import annotations

import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from cypher.errors import DataError, ModelError, first_line
from cypher.hub.weights import read_safetensors
from cypher.models.headed import HeadedModel
from cypher.parallel.checkpoint import Saving, Stored
from cypher.parallel.engine import Engine
from cypher.parallel.gather import fill
from cypher.parallel.optimiser_state import fresh_optimiser_tensors, optimiser_tensors
from cypher.parallel.together import together


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


def load_trained(engine: Engine, path: Path) -> None:
    """Copy trained parameters back from a file; all processes of the engine must call it.

    Args:
        engine: With the same adapter and head; its trained parameters are overwritten.
        path: Written by a run, such as ``best.safetensors``.

    Raises:
        ModelError: The file is of another model or adapter.
    """
    own = engine.trained
    saved = read_safetensors(path)
    # A stage of a pipeline has some of the parameters; all stages together have all of them.
    parts = together(engine.world, lambda: {name: value.shape for name, value in own.items()})
    wanted = {name: shape for part in parts for name, shape in part.items()}
    found = {name: value.shape for name, value in saved.items()}
    if found != wanted:
        different = sorted(found.keys() ^ wanted.keys())[:3] or ["shapes differ"]
        raise ModelError(f"{path} does not fit this recipe ({', '.join(different)})", change="choose another run name")
    fill(own, saved)


def start_from(run: Path, model: HeadedModel) -> None:
    """Copy the best weights of another run; its head too, where the two heads have one shape.

    Args:
        run: Its folder; it need not be finished, but must have been evaluated once.
        model: With the same adapter; every parameter that is trained outside of the head must be in the run.

    Raises:
        DataError: The folder holds no such run.
        ModelError: Its adapter has other tensors.
    """
    path = run / "best.safetensors"
    if not path.is_file():
        raise DataError(
            f"{run} holds no weights of a run", needed="a folder in which cypher train has evaluated at least once"
        )
    saved = read_safetensors(path)
    own = {name: parameter.detach() for name, parameter in model.trained().items()}
    head = {name for name in own if name.startswith("head.")}
    different = {name for name, value in own.items() if name not in saved or saved[name].shape != value.shape}
    different |= {name for name in saved if name not in own and not name.startswith("head.")}
    if foreign := sorted(different - head):
        raise ModelError(
            f"{path} does not fit this recipe ({foreign[0]})", needed="a run of the same model and adapter"
        )
    for name in own if not different else own.keys() - head:
        own[name].copy_(saved[name])


class Checkpoints:
    """A run's checkpoints, of which the newest is kept: at no moment is there none.

    All processes of the run call each method together.

    Args:
        folder: Gets ``step-N``, after an evaluation ``step-N-evaluated``.
        engine: Its trained parameters are kept.
        optimiser: Its moments are kept.
    """

    def __init__(self, folder: Path, engine: Engine, optimiser: torch.optim.Optimizer) -> None:
        self.folder, self.engine, self.optimiser = folder, engine, optimiser
        self._saving: Saving | None = None
        self._final = folder

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(self, *failure: object) -> None:
        if self.engine.world.mesh is None:
            self.finish()
        elif self._saving is not None:  # a process that failed cannot agree with the others on anything
            self._saving.leave()

    @property
    def is_writing(self) -> bool:
        """Whether this process is still at the last one; it is there after :meth:`finish`."""
        return self._saving is not None and self._saving.is_writing

    def begin(self, position: Position, *, copies: bool = True) -> None:
        """Begin to write a checkpoint, after the one before is there.

        Args:
            position: Of the run, between two steps.
            copies: Whether the run goes on meanwhile, so that what is written has to be put aside.

        Raises:
            DataError: The folder cannot be written, or the disk is full.
        """
        self.finish()
        is_evaluated = position.step and position.evaluated_step == position.step
        self._final = self.folder / f"step-{position.step:08d}{'-evaluated' if is_evaluated else ''}"
        tensors = self._weights() | optimiser_tensors(self.optimiser, self.engine.trained)
        self._saving = Saving(self._final, tensors, asdict(position), self.engine.world, copies=copies)

    def finish(self) -> None:
        """Wait for the checkpoint that was begun, then remove older ones.

        Raises:
            DataError: The disk is full.
        """
        if self._saving is None:
            return
        self._saving.finish()
        self._saving = None
        if self.engine.world.is_main:
            for other in (*self.folder.glob("step-*"), *self.folder.glob(".step-*")):
                if other != self._final and other.is_dir():
                    shutil.rmtree(other)

    def load(self) -> Position:
        """Continue from the newest checkpoint, whatever the plan it was written under.

        Returns:
            Where the run stands: at the start if there is no checkpoint.

        Raises:
            ModelError: The checkpoint is broken, or of another model or adapter.
        """
        newest = self.engine.world.agreed(newest_checkpoint(self.folder))
        if newest is None:
            return Position()
        stored = Stored(newest, self.engine.world)
        try:
            position = Position(**stored.about)
        except TypeError as error:
            raise ModelError(
                f"{newest} is no checkpoint of this version ({first_line(error)})",
                change="remove the run's folder, or choose another --set name=…",
            ) from error
        moments = fresh_optimiser_tensors(self.optimiser, self.engine.trained, stored.shapes)
        stored.fill(self._weights() | moments)
        return position

    def _weights(self) -> dict[str, Tensor]:
        return {f"model.{name}": parameter for name, parameter in self.engine.trained.items()}


def newest_checkpoint(folder: Path) -> Path | None:
    """The checkpoint to go on from; ``None`` where none was ever whole."""
    return max((path for path in folder.glob("step-*") if path.is_dir()), default=None)
