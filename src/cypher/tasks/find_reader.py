"""A reader's or an adapter's name → its folder; loads no torch, so that a wrong name is told at once."""

from __future__ import annotations

import difflib
import os
from pathlib import Path

from cypher.errors import ModelError
from cypher.hub.hugging_face import resolve_adapter

PRETRAINED = Path(__file__).parents[1] / "pretrained"
"""Readers that ship with the package, a folder each."""

ARRANGEMENT, ADAPTERS = "arrangement.json", "adapters"
"""Of a task's folder whose adapters work together: how, and a folder each."""


def is_reader(name: str | os.PathLike[str]) -> bool:
    """Whether there is a reader of that name."""
    return _folder_of(name) is not None


def find_reader(name: str | os.PathLike[str]) -> Path:
    """The folder of a reader: one that exists, or one that ships with the package.

    Raises:
        ModelError: There is neither.
    """
    if folder := _folder_of(name):
        return folder
    shipped = sorted(path.parent.name for path in PRETRAINED.glob("*/head_config.json"))
    raise ModelError(
        f"there is no reader {os.fspath(name)}",
        needed="the `reader` folder of a finished run" + "".join(f", or {name}" for name in shipped),
    )


def _folder_of(name: str | os.PathLike[str]) -> Path | None:
    folders = (Path(name).expanduser(), PRETRAINED / name)
    return next((folder for folder in folders if (folder / "head_config.json").is_file()), None)


def find_adapter(name: str) -> Path:
    """The folder of an adapter: of a run, of a reader that ships with the package, one that exists, or a repository.

    Raises:
        ModelError: There is none, or the run has several that work together.
    """
    run = Path(name).expanduser()
    for folder in (run / "reader", run / "task", run):
        if (folder / ARRANGEMENT).is_file():
            parts = ", ".join(str(path) for path in sorted((folder / ADAPTERS).iterdir()))
            raise ModelError(f"{name} has adapters that only work together", needed=f"one of them: {parts}")
        if (folder / "adapter_config.json").is_file():
            return folder
    if is_reader(name):
        return find_reader(name)
    if not run.exists() and run.parent.is_dir():
        near = difflib.get_close_matches(run.name, [path.name for path in run.parent.iterdir()], n=1)
        if near:
            raise ModelError(f"there is no adapter {name}", change=f"did you mean {run.parent / near[0]}?")
    return resolve_adapter(name)
