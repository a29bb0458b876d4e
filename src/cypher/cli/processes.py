"""A command that runs in several processes: starting them, and being one of them."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from cypher.cli.console import INTERRUPTED, debugging, note, told
from cypher.errors import CypherError


def is_one_of_many() -> bool:
    """Whether this process was started together with others."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def is_main() -> bool:
    """Whether this process speaks for the others."""
    return os.environ.get("RANK", "0") == "0"


def plan_override(text: str) -> str:
    """What ``--parallel TEXT`` sets of a recipe, as ``--set`` writes it: the whole section, so that nothing is mixed.

    Raises:
        ConfigError: The plan cannot work.
    """
    from cypher.config import ParallelPlan

    values: dict[str, Any] = ParallelPlan.parse(text).model_dump(exclude_defaults=True)
    shown = ", ".join(f"{key} = {_toml(value)}" for key, value in values.items())
    return f"parallel={{ {shown} }}"


def _toml(value: Any) -> str:
    return f'"{value}"' if isinstance(value, str) else str(value).lower()


def start(arguments: Sequence[str], *, processes: int, threads: int | None, max_restarts: int) -> None:
    """Run ``cypher ARGUMENTS`` in several processes of this machine; errors as in :mod:`cypher.parallel.launch`.

    Args:
        arguments: As typed; every process works by the same.
        processes: How many.
        threads: Cores for all of them together; ``None`` is all.
        max_restarts: How often all are started again after one failed.
    """
    from cypher.parallel.launch import launch

    command = [sys.executable, "-m", "cypher", *arguments, *(["--debug"] if debugging.get() else [])]
    launch(command, processes=processes, threads=threads, max_restarts=max_restarts, tell=note)


@contextmanager
def one_of_many() -> Iterator[None]:
    """Leave a note of a failure for whoever started this process; says nothing itself where only the first is told."""
    from cypher.parallel.failure import record_failure
    from cypher.parallel.launch import follow_launcher, is_launched

    if is_launched():
        follow_launcher()
    try:
        yield
    except (Exception, KeyboardInterrupt) as error:
        line = told(error)
        record_failure(error, line=line)
        if debugging.get():
            raise
        if is_launched():
            # Not typer.Exit: with the code of Ctrl-C it is told as one.
            raise SystemExit(error.exit_code if isinstance(error, CypherError) else _code(error)) from None
        named = CypherError(f"rank {os.environ.get('RANK', '?')}: {line}")
        named.exit_code = error.exit_code if isinstance(error, CypherError) else _code(error)
        raise named from error


def _code(error: BaseException) -> int:
    return INTERRUPTED if isinstance(error, KeyboardInterrupt) else 1
