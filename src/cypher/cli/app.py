"""``cypher`` itself: its groups, loaded when they are called, and its global options.

A new group is one line in ``GROUPS`` and a file ``cli/<name>.py`` with ``app: typer.Typer``.
"""

from __future__ import annotations

import importlib
import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from cypher.cli import console

GROUPS = {
    "qa": "Ask questions of your own documents.",
    "train": "Train what a recipe describes.",
    "plan": "Find how to divide a model over processes: bytes, waits, traffic, time.",
    "evaluate": "Score what a run has trained on a file.",
    "predict": "Use what a run has trained on a file, or on rows as they come.",
    "superglue": "Learn SuperGLUE's tasks, compare, and pack a submission.",
    "adapters": "List adapter methods; show, convert, average and fold in adapters.",
    "models": "List, fetch and export models; see what combines with what.",
    "data": "List and fetch data sets.",
    "doctor": "Show what this machine has: Python, torch, CPU, models, data.",
}


class LazyGroup(TyperGroup):
    """A group whose commands stand in for the files ``cli/<name>.py`` until one of them is called."""

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        """Import the group that is called, then do as any group."""
        if args and args[0] in GROUPS:
            module = importlib.import_module(f"cypher.cli.{args[0]}")
            command = typer.main.get_command(module.app)
            # A program of its own would offer to install shell completion; a group of ours does not.
            command.params = [param for param in command.params if not str(param.name).endswith("_completion")]
            self.commands[args[0]] = command
        return super().resolve_command(ctx, args)


app = typer.Typer(
    cls=LazyGroup,
    add_completion=False,
    invoke_without_command=True,
    epilog="Example: cypher models fetch minilm",
)


def _stands_in() -> None:
    """Never called: the file of the same name takes its place first."""


for _name, _help in GROUPS.items():
    app.command(name=_name, help=_help)(_stands_in)


@app.callback()
def cypher(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """NLP techniques as parts that fit together."""
    # --debug is taken out of the arguments before they come here, so that it works in any place.
    if version:
        from cypher import __version__

        print(f"cypher {__version__}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        print(context.get_help())


def run(arguments: list[str]) -> int:
    """Run one command and return its exit code; for the program and for tests.

    Args:
        arguments: As typed, without ``cypher``.

    Example:
        >>> run(["--version"])
        cypher 0.1.0
        0
    """
    return console.run(typer.main.get_command(app), arguments)


def run_as_program(arguments: list[str]) -> int:
    """As :func:`run`, for a process of its own: output never fails for a character the terminal lacks."""
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    if not console.wants_debug(arguments):
        sys.excepthook = console.report_unexpected
    return run(arguments)
