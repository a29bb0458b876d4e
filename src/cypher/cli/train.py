"""``cypher train``: what a recipe describes, with a bar, resumed where it was interrupted."""

from __future__ import annotations

import os
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cypher.cli.console import INTERRUPTED, JsonOption, note, print_json, print_table, progress_bars
from cypher.cli.named_models import check_model
from cypher.cli.processes import is_main, is_one_of_many, one_of_many, plan_override, start
from cypher.errors import ConfigError, CypherError

if TYPE_CHECKING:
    from cypher.config import Recipe

app = typer.Typer(help="Train what a recipe describes.")


@app.command(epilog="Example: cypher train recipes/qa_reader.toml --set train.epochs=1 --set name=quick")
def train(
    recipe: Annotated[Path | None, typer.Argument(metavar="RECIPE", help="A TOML file.", show_default=False)] = None,
    changes: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Change one value; may be repeated."),
    ] = None,
    runs: Annotated[Path, typer.Option("--runs", help="Folder of all runs; this one is RUNS/NAME.")] = Path("runs"),
    threads: Annotated[
        int | None,
        typer.Option("--threads", min=1, help="Processor cores to use, for all processes together; all unless given."),
    ] = None,
    parallel: Annotated[
        str | None,
        typer.Option(
            "--parallel",
            metavar="PLAN",
            help="Processes to start on this machine and how the model is divided over them, such as dp=2,tp=2.",
        ),
    ] = None,
    max_restarts: Annotated[
        int, typer.Option("--max-restarts", min=0, help="Start all processes again so often after one failed.")
    ] = 0,
    print_schema: Annotated[
        bool, typer.Option("--print-schema", help="Print the JSON schema of a recipe and stop.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Train what a recipe describes; a run that was interrupted goes on where it was."""
    from cypher.config import Recipe

    if print_schema:
        print_json(Recipe.model_json_schema())
        return
    if recipe is None:
        raise ConfigError("no recipe was given", needed="a TOML file", change="cypher train recipes/qa_reader.toml")
    given = [*(changes or ()), *([plan_override(parallel)] if parallel is not None else [])]
    resolved = Recipe.load(recipe, overrides=given)
    check_model(resolved.model.name)
    processes = resolved.parallel.world
    if processes > 1 and not is_one_of_many():
        _fetch(resolved)
        options = [part for change in given for part in ("--set", change)] + (["--json"] if json else [])
        start(
            ["train", str(recipe), "--runs", str(runs), *options],
            processes=processes,
            threads=threads,
            max_restarts=max_restarts,
        )
        return
    with one_of_many() if is_one_of_many() else nullcontext():
        _fetch(resolved)
        _train(resolved, runs / resolved.name, threads=threads, json=json)


def _fetch(recipe: Recipe) -> None:
    from cypher.tasks.run import fetch_parts

    with progress_bars(of_bytes=True) as fetching:
        fetch_parts(recipe, progress=fetching if is_main() else None)


def _train(recipe: Recipe, folder: Path, *, threads: int | None, json: bool) -> None:
    import torch

    from cypher.tasks.run import run_recipe

    if threads is not None:
        torch.set_num_threads(max(1, threads // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))))
    watcher = _watcher()
    try:
        with watcher:
            run = run_recipe(recipe, folder=folder, progress=watcher)
    except KeyboardInterrupt:
        raise _interrupted(watcher) from None
    if not is_main():
        return
    result = run.result
    if json:
        print_json(
            {
                "folder": run.folder,
                "steps": result.steps,
                "seconds": result.seconds,
                "scores": result.scores,
                "skipped_rows": run.skipped,
            }
        )
        return
    if run.skipped:
        note(f"{run.skipped} rows could not be read and were left out")
    print_table(("score", "value"), [(name, f"{value:.2f}") for name, value in result.scores.items()])
    print(run.folder)


class _Watcher:
    """Knows how far a run is, and draws nothing: what a log file wants to know is in the run's ``metrics.jsonl``."""

    def __init__(self) -> None:
        self.step = self.total = 0

    def __enter__(self) -> _Watcher:
        return self

    def __exit__(self, *failure: object) -> None:
        return None

    def started(self, *, total_steps: int, first_step: int) -> None:
        """Say when it is not a beginning."""
        self.step, self.total = first_step, total_steps
        if first_step:
            note(
                f"resuming after step {first_step} of {total_steps}"
                if first_step < total_steps
                else f"this run is finished: {total_steps} steps"
            )

    def stepped(self, *, step: int, loss: float, tokens_per_second: float) -> None:
        """Remember it, for an interruption."""
        self.step = step

    def evaluated(self, *, step: int, scores: dict[str, float], best: bool) -> None:
        """Keep silent."""


class _Bar(_Watcher):
    """A bar with loss, speed and time left; evaluations stay as lines above it."""

    def __init__(self) -> None:
        super().__init__()
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self.bars = Progress(
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("loss {task.fields[loss]:.3f}  {task.fields[speed]:,.0f} tokens/s"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            transient=True,
        )

    def __enter__(self) -> _Bar:
        self.bars.start()
        return self

    def __exit__(self, *failure: object) -> None:
        self.bars.stop()

    def started(self, *, total_steps: int, first_step: int) -> None:
        super().started(total_steps=total_steps, first_step=first_step)
        self.task: Any = self.bars.add_task("", total=total_steps, completed=first_step, loss=float("nan"), speed=0.0)

    def stepped(self, *, step: int, loss: float, tokens_per_second: float) -> None:
        super().stepped(step=step, loss=loss, tokens_per_second=tokens_per_second)
        self.bars.update(self.task, completed=step, loss=loss, speed=tokens_per_second)

    def evaluated(self, *, step: int, scores: dict[str, float], best: bool) -> None:
        shown = ", ".join(f"{name} {value:.2f}" for name, value in scores.items())
        note(f"step {step}: {shown}{' (best so far)' if best else ''}")


class _Follower(_Watcher):
    """Of a process that does not speak for the others."""

    def started(self, *, total_steps: int, first_step: int) -> None:
        """Remember it, for an interruption."""
        self.step, self.total = first_step, total_steps


def _watcher() -> _Watcher:
    if not is_main():
        return _Follower()
    return _Bar() if sys.stderr.isatty() else _Watcher()


def _interrupted(watcher: _Watcher) -> CypherError:
    where = f"after step {watcher.step} of {watcher.total}" if watcher.total else "before the first step"
    error = CypherError(f"interrupted {where}", change="run the same command again to go on")
    error.exit_code = INTERRUPTED
    return error
