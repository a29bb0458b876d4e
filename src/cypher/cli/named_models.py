"""Names of models and readers as they are typed: one that cannot be right is a wrong call, told at once."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from cypher.errors import ModelError

# What has to be looked up on the hub, where it may be or not.
_HUB_NAME = re.compile(r"\w[\w.-]*/\w[\w.-]*(@[\w.-]+)?")


def check_model(name: str, *, formats: Collection[str] = ("safetensors",)) -> None:
    """Refuse a name that is neither in the catalogue, nor on this machine, nor one the hub could have.

    A model in a format that the command cannot use is refused, too, before it is fetched.

    Args:
        name: As for :func:`cypher.hub.resolve`.
        formats: What the command can do something with.

    Raises:
        ModelError: With the exit code of a wrong call.
    """
    from cypher.hub import models, resolve

    if (name in models() and models()[name].format in formats) or _HUB_NAME.fullmatch(name):
        return
    with _as_a_wrong_call():
        resolve(name, formats=formats, offline=True)


def check_planned(name: str) -> None:
    """Refuse what ``cypher plan`` cannot plan for.

    Args:
        name: A recipe's path, the name of sizes, or a model's as for :func:`cypher.hub.resolve`.

    Raises:
        ModelError: With the exit code of a wrong call.
    """
    from cypher.models.sizes import presets

    if name.endswith(".toml") or name in presets():
        return
    near = difflib.get_close_matches(name, presets(), n=1)
    if near and "/" not in name and not Path(name).exists():
        with _as_a_wrong_call():
            raise ModelError(
                f"no sizes are called {name!r} (did you mean {near[0]!r}?)",
                needed=f"a recipe's file, a model's name or folder, or one of {', '.join(presets())}",
            )
    check_model(name)


def check_reader(name: str) -> None:
    """Refuse a name that is no reader.

    Args:
        name: As for :func:`cypher.tasks.find_reader.find_reader`.

    Raises:
        ModelError: With the exit code of a wrong call.
    """
    from cypher.tasks.find_reader import find_reader

    with _as_a_wrong_call():
        find_reader(name)


@contextmanager
def _as_a_wrong_call() -> Iterator[None]:
    try:
        yield
    except ModelError as error:
        error.exit_code = 2
        raise
