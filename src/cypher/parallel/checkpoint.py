"""Tensors of a run on disk: written by all of its processes, a file each, and read under any other plan.

The files are those of ``torch.distributed.checkpoint`` in safetensors: each holds pieces of tensors, and says in its
header where in the whole tensor a piece begins. Which process writes what is planned by its ``DefaultSavePlanner``
(what several processes hold is written once), what a process needs from which file by its ``DefaultLoadPlanner``.
Nothing is pickled. ``checkpoint.json`` comes last: what the run wants remembered, and the size of each file.

Writing is :func:`cypher.hub.weights.write_safetensors`: ``HuggingFaceStorageWriter`` puts a file together in memory
first, which takes about twice as long, and refuses tensors that are not contiguous. Either reads the files of either.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor
from torch.distributed.checkpoint.default_planner import DefaultLoadPlanner, DefaultSavePlanner
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader
from torch.distributed.checkpoint.metadata import TensorStorageMetadata
from torch.distributed.checkpoint.planner import SavePlan

from cypher.config import ParallelPlan
from cypher.errors import DataError, ModelError, first_line
from cypher.files import read_json, write_text
from cypher.hub.cache import writing
from cypher.hub.weights import write_safetensors
from cypher.parallel.together import together
from cypher.parallel.world import World

ABOUT = "checkpoint.json"
_OTHER_FOLDER = "choose another folder with --runs"
_OTHER_RUN = "remove the run's folder, or choose another --set name=…"
_UNREADABLE = (OSError, ValueError, KeyError, TypeError, IndexError, AssertionError, RuntimeError, SafetensorError)


class Saving:
    """A checkpoint under way: copied when this returns, written by a thread, there once :meth:`finish` has returned.

    It is written into a hidden folder beside, which takes its name when all processes are done: whenever a process
    dies, the folder is whole or is not there. All processes must call this and :meth:`finish`, in the same order with
    everything else they do together; the thread talks to nobody, so it needs no process group of its own.

    Args:
        folder: Of this checkpoint, which all processes see; where it exists already, nothing is written.
        tensors: Of this process, by names that are the same everywhere: whole ones, or its part of divided ones.
        about: What to remember beside them, for JSON; that of the main process counts.
        world: All processes.
        copies: Whether the tensors may change before :meth:`finish`, as they do in a step.

    Raises:
        DataError: The folder cannot be written.
    """

    def __init__(
        self,
        folder: Path,
        tensors: Mapping[str, Tensor],
        about: Mapping[str, Any],
        world: World,
        *,
        copies: bool = True,
    ) -> None:
        self._folder, self._about, self._world = folder, about, world
        self._partial = together(world, lambda: _partial(folder) if world.is_main else None)[0]
        if self._partial is None:
            return
        pieces, header = _planned(tensors, world)
        if copies:
            pieces = {name: piece.to("cpu", copy=True) for name, piece in pieces.items()}
        pool = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._written = pool.submit(_write, self._partial, world.rank, pieces, header)
        pool.shutdown(wait=False)

    @property
    def is_writing(self) -> bool:
        """Whether this process's file is not yet on disk."""
        return self._partial is not None and not self._written.done()

    def finish(self) -> None:
        """Wait until all processes have written, and give the checkpoint its name.

        Raises:
            DataError: In one of the processes the disk is full, or its file is not to be seen by the main process.
        """
        if self._partial is None:
            return
        files = dict(filter(None, together(self._world, lambda: self._written.result())))
        together(self._world, lambda: self._publish(files) if self._world.is_main else None)
        self._partial = None

    def leave(self) -> None:
        """Wait for this process's thread alone: the checkpoint stays without a name, and is none."""
        if self._partial is not None:
            self._written.exception()

    def _publish(self, files: Mapping[str, int]) -> None:
        assert self._partial is not None
        if (absent := _other_sizes(self._partial, files)) is not None:
            given = f"{absent} of {self._folder} is not to be seen by the main process"
            raise DataError(given, needed="a folder that all machines share", change=_OTHER_FOLDER)
        write_text(self._partial / ABOUT, json.dumps({"about": self._about, "files": files}, indent=1))
        with writing(self._folder.parent, kind=DataError, otherwise=_OTHER_FOLDER):
            self._partial.rename(self._folder)


def save(folder: Path, tensors: Mapping[str, Tensor], about: Mapping[str, Any], world: World) -> None:
    """Write a checkpoint and wait for it; see :class:`Saving`.

    Args:
        folder: As of :class:`Saving`, and so are the others.
        tensors: Of this process.
        about: What to remember beside them.
        world: All processes.

    Raises:
        DataError: The folder cannot be written, or the disk is full.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp()) / "step-3"
        >>> save(folder, {"weight": torch.ones(2)}, {"step": 3}, World(plan=ParallelPlan()))
        >>> weight = torch.zeros(2)
        >>> load(folder, {"weight": weight}, World(plan=ParallelPlan()))
        {'step': 3}
        >>> weight
        tensor([1., 1.])
    """
    Saving(folder, tensors, about, world, copies=False).finish()


class Stored:
    """A checkpoint on disk; all processes must open it.

    Args:
        folder: As it was given to :class:`Saving`.
        world: All processes, of any plan.

    Attributes:
        about: What was remembered beside the tensors.
        shapes: Of every tensor as a whole.

    Raises:
        ModelError: It is not whole, is cut off, or of another version.
    """

    about: dict[str, Any]
    shapes: dict[str, torch.Size]

    def __init__(self, folder: Path, world: World) -> None:
        self.folder, self.world = folder, world
        together(world, self._open)

    def fill(self, tensors: Mapping[str, Tensor]) -> None:
        """Read this process's parts into its tensors; all processes must call it, and ask for everything between them.

        Args:
            tensors: Of this process, whole or divided in any way; overwritten.

        Raises:
            ModelError: The checkpoint has more, fewer or other tensors, or cannot be read.
        """
        wanted = set().union(*together(self.world, lambda: set(tensors)))
        if foreign := sorted(wanted ^ self.shapes.keys()):
            has = "has" if foreign[0] in self.shapes else "lacks"
            raise self._does_not_fit(f"{has} {foreign[0]}")
        together(self.world, lambda: self._read(tensors))

    def whole(self) -> dict[str, Tensor]:
        """All tensors, put together in this process.

        Raises:
            ModelError: The checkpoint cannot be read.
        """
        tensors = {key: torch.empty(kept.size, dtype=kept.properties.dtype) for key, kept in self._kept.items()}
        self._read(tensors)
        return tensors

    def _open(self) -> None:
        path = self.folder / ABOUT
        if self.folder.is_dir() and not path.exists():
            raise ModelError(f"{self.folder} is no checkpoint of this version (no {ABOUT})", change=_OTHER_RUN)
        values = read_json(path, kind=ModelError, needed="a whole checkpoint")
        try:
            self.about, files = dict(values["about"]), dict(values["files"])
            if (absent := _other_sizes(self.folder, files)) is not None:
                raise ModelError(f"{self.folder / absent} is missing or cut off", change=_OTHER_RUN)
            # The reader lists the folder, and takes what is there for the checkpoint.
            self._reader = HuggingFaceStorageReader(str(self.folder))
            self._metadata = self._reader.read_metadata()
        except _UNREADABLE as error:
            raise self._broken(error) from error
        self._kept: dict[str, TensorStorageMetadata] = self._metadata.state_dict_metadata  # type: ignore[assignment]
        self.shapes = {key: kept.size for key, kept in self._kept.items()}

    def _read(self, tensors: Mapping[str, Tensor]) -> None:
        for key, tensor in tensors.items():
            kept = self._kept[key].size, self._kept[key].properties.dtype
            if kept != (asked := (tensor.shape, tensor.dtype)):
                found, own = (f"{tuple(size)} in {dtype}" for size, dtype in (kept, asked))
                raise self._does_not_fit(f"{key} is {found}, not {own}")
        planner = DefaultLoadPlanner(flatten_state_dict=False)
        try:
            planner.set_up_planner({key: tensor.detach() for key, tensor in tensors.items()}, self._metadata)
            self._reader.set_up_storage_reader(self._metadata, is_coordinator=True)
            self._reader.read_data(planner.create_local_plan(), planner).wait()
        except _UNREADABLE as error:
            raise self._broken(error) from error

    def _does_not_fit(self, reason: str) -> ModelError:
        return ModelError(f"{self.folder} does not fit this recipe ({reason})", change=_OTHER_RUN)

    def _broken(self, error: Exception) -> ModelError:
        return ModelError(f"{self.folder} is no checkpoint of this version ({first_line(error)})", change=_OTHER_RUN)


def load(folder: Path, tensors: Mapping[str, Tensor], world: World) -> dict[str, Any]:
    """Fill tensors from a checkpoint; see :class:`Stored`.

    Args:
        folder: Of the checkpoint.
        tensors: As of :meth:`Stored.fill`.
        world: All processes, of any plan.

    Returns:
        What was remembered beside them.

    Raises:
        ModelError: It is not whole, or of another model; the same in every process.
    """
    stored = Stored(folder, world)
    stored.fill(tensors)
    return stored.about


def consolidate(folder: Path) -> dict[str, Tensor]:
    """All tensors of a checkpoint in one process, which need not belong to any run.

    Args:
        folder: Of a checkpoint that any number of processes wrote.

    Raises:
        ModelError: The checkpoint is not whole.
    """
    return Stored(folder, World(plan=ParallelPlan())).whole()


def _partial(folder: Path) -> Path | None:
    """A new folder to write into, hidden beside its place; none where the checkpoint is there already."""
    if folder.exists():  # replacing it would leave a moment without any
        return None
    with writing(folder.parent, kind=DataError, otherwise=_OTHER_FOLDER):
        partial = folder.with_name(f".{folder.name}")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        return partial


def _planned(tensors: Mapping[str, Tensor], world: World) -> tuple[dict[str, Tensor], dict[str, dict[str, list[int]]]]:
    """The pieces that this process writes, and where each begins; all make the same plan from what each could write."""
    planner = DefaultSavePlanner(flatten_state_dict=False)
    planner.set_up_planner({key: tensor.detach() for key, tensor in tensors.items()}, is_coordinator=world.is_main)
    plans = together(world, lambda: _without_empty_pieces(planner.create_local_plan()))
    pieces, begins = {}, {}
    for item in planner.create_global_plan(plans)[0][world.rank].items:
        name, offset, piece = item.index.fqn, item.index.offset, planner.resolve_data(item)
        assert isinstance(piece, Tensor)
        assert offset is not None
        pieces[name], begins[name] = piece.detach(), {"saved_offsets": list(offset)}
    return pieces, begins


def _without_empty_pieces(plan: SavePlan) -> SavePlan:
    """Where there are fewer rows than processes some hold none, and all of those would begin at the same place."""
    sizes = [(item.tensor_data.chunk.sizes, item.tensor_data.size) for item in plan.items if item.tensor_data]
    is_empty = [math.prod(piece) == 0 < math.prod(whole) for piece, whole in sizes]
    return replace(plan, items=[item for item, empty in zip(plan.items, is_empty, strict=True) if not empty])


def _write(folder: Path, rank: int, pieces: Mapping[str, Tensor], header: Mapping[str, Any]) -> tuple[str, int] | None:
    """This process's file: its name and size; none where others write everything that it holds."""
    if not pieces:
        return None
    path = folder / f"shard-{rank + 1:05d}-model-00001-of-00001.safetensors"
    write_safetensors(path, pieces, {"DCP_SHARDING_INFO": json.dumps(header), "DCP_VERSION": "1.0"})
    return path.name, path.stat().st_size


def _other_sizes(folder: Path, files: Mapping[str, int]) -> str | None:
    """The first file that is missing, of another size, or not listed."""
    sizes = {path.name: path.stat().st_size for path in folder.glob("*.safetensors")}
    return min((name for name in sizes.keys() | files.keys() if sizes.get(name) != files.get(name)), default=None)
