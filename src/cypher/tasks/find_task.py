"""A run's name → the folder of what it has trained; loads no torch, so that a wrong name is told at once."""

from __future__ import annotations

import os
from pathlib import Path

from cypher.errors import DataError
from cypher.tasks.find_reader import PRETRAINED


def find_task(name: str | os.PathLike[str]) -> Path:
    """The folder of a trained task: a run's, one named itself, or one that ships with the package.

    Raises:
        DataError: There is none.
    """
    run = Path(name).expanduser()
    for folder in (run, run / "task", run / "reader", PRETRAINED / name):
        if (folder / "head_config.json").is_file():
            return folder
    if (run / "recipe.toml").is_file():
        raise DataError(
            f"the run in {run} is not finished", change=f"go on with it: cypher train {run / 'recipe.toml'}"
        )
    raise DataError(f"there is no run in {run}", needed="a folder that cypher train has written, such as runs/NAME")
