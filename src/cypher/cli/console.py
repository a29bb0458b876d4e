"""What every command shares: exit codes, error lines, ``--json``, tables, progress.

A command group is written like this; it prints through this file and lets every ``CypherError`` pass:

    app = typer.Typer(no_args_is_help=True)

    @app.command("list", epilog="Example: cypher models list --json")
    def list_models(json: JsonOption = False) -> None:
        "List the models known by name."
        rows = ...
        if json:
            print_json({"models": rows})
        else:
            print_table(("name", "size"), [(row["name"], row["size"]) for row in rows])

- Exit codes: 0 done, 1 the work failed, 2 the call or the input is wrong, 130 interrupted.
- stdout is for the result; with ``--json`` it is exactly one JSON object. ``note`` and bars go to stderr, and
  bars are drawn only when it is a terminal.
- Heavy imports (torch, stores, plots) belong inside the command's function.
- Tests call ``cypher.cli.app.run([...]) -> exit code`` and read what was printed.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from contextvars import ContextVar
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cypher.errors import CypherError

if TYPE_CHECKING:
    from cypher.hub.download import FetchProgress

JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout and nothing else.")]
"""The type of every command's ``json`` parameter."""

INTERRUPTED = 130

debugging: ContextVar[bool] = ContextVar("debugging", default=False)
"""Whether tracebacks are wanted."""

# typer brings a click of its own in some versions and uses the package in others; both have this class.
_CallError: Any = typer.BadParameter.__mro__[2]


def run(command: Any, arguments: list[str]) -> int:
    """Run a typer command, print its error as one line, return the exit code."""
    debug = wants_debug(arguments)
    debugging.set(debug)
    arguments = [argument for argument in arguments if not (debug and argument == "--debug")]
    try:
        code = command.main(arguments, prog_name="cypher", standalone_mode=False)
        sys.stdout.flush()
    except CypherError as error:
        return _fail(str(error), error.exit_code, debug=debug)
    except _CallError as error:
        return _wrong_call(error)
    except (KeyboardInterrupt, typer.Abort):
        code = INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has gone (`cypher … | head`); what is still buffered has nowhere to go.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    if code == INTERRUPTED:
        return _fail(told(KeyboardInterrupt()), INTERRUPTED, debug=debug)
    return code if isinstance(code, int) else 0


def wants_debug(arguments: Sequence[str]) -> bool:
    """Whether ``--debug`` is among the options; after ``--`` everything is text."""
    return "--debug" in arguments[: arguments.index("--") if "--" in arguments else None]


def report_unexpected(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """For ``sys.excepthook``: a mistake of ours, in one line."""
    _fail(told(error.with_traceback(trace)), 1, debug=False)


def told(error: BaseException) -> str:
    """One line about any error."""
    if isinstance(error, CypherError):
        return str(error)
    if isinstance(error, KeyboardInterrupt):
        return "interrupted; what was already written is kept"
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "cypher" in Path(frame.filename).parts]
    where = f" at {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
    return f"unexpected {type(error).__name__}{where}: {error}; run again with --debug and report it"


def _fail(line: str, code: int, *, debug: bool) -> int:
    if debug:
        traceback.print_exc()
    note(f"error: {line}")
    return code


def _wrong_call(error: Any) -> int:
    line = error.format_message().strip()
    if line:  # without one the group was called bare, and its help is already printed
        path = error.ctx.command_path if getattr(error, "ctx", None) else "cypher"
        note(f"error: {line.rstrip('.')}; see `{path} --help`")
    return int(error.exit_code)


def visible(text: object) -> str:
    """Text safe for a terminal: control characters, which a document can carry, are shown as �."""
    return "".join(c if c.isprintable() or c in "\n\t" else "�" for c in str(text))


def one_line(text: object) -> str:
    r"""As `visible`, in one line: every stretch of white space, ``\r`` and ``\f`` too, is one space.

    Example:
        >>> one_line("two\r\nlines\f")
        'two lines'
    """
    return visible(" ".join(str(text).split()))


def note(text: str) -> None:
    """One line for the person, on stderr."""
    print(one_line(text), file=sys.stderr)


def print_json(value: dict[str, Any]) -> None:
    """The one JSON object of a command; dataclasses and paths are written as objects and text."""
    # ASCII only: the same on every terminal and in every pipe. NaN is not JSON and means a bug.
    print(json.dumps(value, default=_plain, allow_nan=False))


def _plain(value: object) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    raise TypeError(f"{type(value).__name__} has no JSON form")


def print_table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """A table on a terminal; elsewhere lines with tabs, the columns first, for ``cut`` and ``grep``."""
    if not sys.stdout.isatty():
        for row in (columns, *rows):
            print("\t".join(map(one_line, row)))
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(Text(one_line(cell)) for cell in row))
    Console().print(table)


@contextmanager
def progress_bars(*, of_bytes: bool = False) -> Iterator[FetchProgress | None]:
    """Progress on stderr as a callback, a bar for each kind of work; ``None`` when stderr is no terminal.

    Nothing is drawn, and the library that draws is not loaded, before something is told.

    Args:
        of_bytes: Show sizes and speed, as for a download, instead of a percentage and the time left.

    Example:
        >>> with progress_bars(of_bytes=True) as progress:
        ...     folder = resolve("minilm", progress=progress)  # doctest: +SKIP
    """
    if not sys.stderr.isatty():
        yield None
        return
    tasks: dict[str, Any] = {}
    with ExitStack() as drawing:
        bars: Any = None

        def show(what: str, done: int, total: int) -> None:
            nonlocal bars
            if bars is None:
                bars = drawing.enter_context(_bars(of_bytes=of_bytes))
            if what not in tasks:
                tasks[what] = bars.add_task(what)
            bars.update(tasks[what], completed=done, total=total or None)

        yield show


def _bars(*, of_bytes: bool) -> AbstractContextManager[Any]:
    from rich import progress
    from rich.console import Console

    last = (
        (progress.DownloadColumn(), progress.TransferSpeedColumn())
        if of_bytes
        else (progress.TaskProgressColumn(), progress.TimeRemainingColumn())
    )
    columns = (progress.TextColumn("{task.description}"), progress.BarColumn(), *last)
    return progress.Progress(*columns, console=Console(stderr=True), transient=True)
