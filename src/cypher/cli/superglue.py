"""``cypher superglue``: run, table, fuse, submit, check."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from cypher.cli.console import JsonOption, note, print_json, print_table, progress_bars
from cypher.errors import ConfigError, CypherError

app = typer.Typer(no_args_is_help=True, help="SuperGLUE: learn its tasks, compare, and pack a submission.")

Run = Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a cypher superglue run.")]
DataOption = Annotated[
    list[Path] | None,
    typer.Option(
        "--data",
        help="Folder with a sub-folder a task (BoolQ, CB, …); repeated, the first that has the task is taken. "
        "Without it, superglue_full and superglue_fewshot32 under CYPHER_DATA.",
    ),
]
SplitOption = Annotated[
    Literal["test", "val"], typer.Option("--split", help="Rows to answer: test for the leaderboard, val to try it.")
]


@app.command(epilog="Example: cypher superglue run --tasks cb,rte --data SuperGLUE --profile quick")
def run(
    tasks: Annotated[str, typer.Option("--tasks", help="all, or some of boolq,cb,copa,multirc,record,rte,wic,wsc.")] = (
        "all"
    ),
    data: DataOption = None,
    model: Annotated[str, typer.Option("--model", help="Encoder: a name, a folder or owner/name.")] = "minilm",
    adapter: Annotated[
        str, typer.Option("--adapter", help="Method that is trained, such as lora or seq_bn; none trains all weights.")
    ] = "lora",
    few_shot: Annotated[bool, typer.Option("--few-shot", help="Learn from 32 rows a task.")] = False,
    profile: Annotated[
        Literal["quick", "full"], typer.Option("--profile", help="full: about an hour on two cores; quick: minutes.")
    ] = "full",
    seeds: Annotated[
        str, typer.Option("--seeds", help="The first is every task's; COPA, CB and WSC take all.")
    ] = "1,2,3",
    output: Annotated[Path, typer.Option("--output", help="Folder of the run; the same one goes on.")] = Path(
        "runs/superglue"
    ),
    threads: Annotated[
        int | None, typer.Option("--threads", min=1, help="Processor cores to use; all unless given.")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Learn tasks with one backbone, an adapter and a head each; metrics are fractions of 1."""
    from cypher.apps.superglue.benchmark import find_tasks
    from cypher.apps.superglue.parts import default_folders

    chosen, folders, numbers = find_tasks(tasks), data or default_folders(), _seeds(seeds)
    import torch

    from cypher.apps.superglue.run import Plan
    from cypher.apps.superglue.run import run as learn_all

    if threads is not None:
        torch.set_num_threads(threads)
    plan = Plan(
        tasks=chosen,
        folders=folders,
        model=model,
        adapter=adapter,
        few_shot=few_shot,
        profile=profile,
        seeds=numbers,
        output=output,
    )
    with progress_bars() as show:
        scores = learn_all(plan, show=show, tell=note if sys.stderr.isatty() else None)
    if json:
        print_json({"output": output, **scores})
    else:
        _print_scores(scores)
        print(output)
    if failed := scores["failed"]:
        if not json and not sys.stderr.isatty():  # a terminal has seen them as they happened
            for key, reason in failed.items():
                note(f"{key} failed: {reason}")
        raise CypherError(f"{len(failed)} of {len(chosen)} tasks failed: {', '.join(failed)}")


def _seeds(given: str) -> list[int]:
    parts = [part.strip() for part in given.split(",")]
    if not all(part.isdecimal() for part in parts) or len(set(parts)) < len(parts):
        raise ConfigError(f"--seeds {given}", needed="whole numbers that differ, divided by commas, such as 1,2,3")
    return [int(part) for part in parts]


def _print_scores(scores: dict[str, Any]) -> None:
    from cypher.apps.superglue.benchmark import TASKS

    rows = []
    for key, task in scores["tasks"].items():
        errors = task["standard_error"] or {}
        for name, value in task["metrics"].items():
            error = f" ± {errors[name]:.3f}" if name in errors else ""
            rows.append((TASKS[key].name, name, f"{value:.3f}{error}", f"{task['majority'][name]:.3f}"))
    if scores["score"] is not None:
        rows.append(("all eight", "score", f"{scores['score']:.3f}", f"{scores['majority_score']:.3f}"))
    print_table(("task", "metric", "value", "majority"), rows)


@app.command(epilog="Example: cypher superglue table runs/superglue --html superglue.html")
def table(
    runs: Annotated[
        list[Path] | None, typer.Argument(metavar="[RUN]…", help="Folders of runs.", show_default=False)
    ] = None,
    html: Annotated[Path | None, typer.Option("--html", help="Write the table as a page.")] = None,
    json: JsonOption = False,
) -> None:
    """Set runs beside human, ERNIE 3.0, DeBERTa, T5-11B and CBOW, all in percent, with the source of each row."""
    from cypher.apps.superglue.table import cells, columns, shown_tasks, table_page, table_rows

    rows = table_rows(runs or [])
    if html is not None:
        from cypher.files import write_text

        write_text(html, table_page(rows))
    if json:
        print_json({"rows": rows})
        return
    print_table(columns(rows), [cells(row, shown_tasks(rows)) for row in rows])
    if html is not None:
        print(html)


@app.command(epilog="Example: cypher superglue fuse runs/superglue_bottlenecks --task cb")
def fuse(
    run_folder: Run,
    task: Annotated[str, typer.Option("--task", help="One that the run has learnt.")],
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of the fusion's weights and the order of rows.")] = 1,
    threads: Annotated[
        int | None, typer.Option("--threads", min=1, help="Processor cores to use; all unless given.")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Fuse the adapters of all tasks of a run for one of them (a run with --adapter seq_bn or another bottleneck)."""
    from cypher.apps.superglue.benchmark import find_tasks

    chosen = find_tasks(task)
    if len(chosen) > 1:
        raise ConfigError(f"--task {task} is several tasks", needed="one")
    import torch

    from cypher.apps.superglue.fuse import fuse as fuse_adapters

    if threads is not None:
        torch.set_num_threads(threads)
    with progress_bars() as show:
        found = fuse_adapters(run_folder, chosen[0], seed=seed, show=show)
    if json:
        print_json(found)
        return
    print_table(
        ("metric", "fused", "alone", "majority"),
        [
            (name, f"{value:.3f}", f"{found['alone'][name]:.3f}", f"{found['majority'][name]:.3f}")
            for name, value in found["metrics"].items()
        ],
    )


@app.command(epilog="Example: cypher superglue submit runs/superglue --output submission.zip")
def submit(
    run_folder: Run,
    output: Annotated[Path, typer.Option("--output", help="The archive.")] = Path("submission.zip"),
    data: DataOption = None,
    split: SplitOption = "test",
    json: JsonOption = False,
) -> None:
    """Pack a run's predictions for the leaderboard, and check them; where it has none the majority answers."""
    from cypher.apps.superglue.run import predictor
    from cypher.apps.superglue.submit import submit as pack
    from cypher.apps.superglue.table import read_scores

    folders = data or [Path(folder) for folder in read_scores(run_folder)["data"]]
    done = pack(output, folders, predictor(run_folder), split=split)
    if json:
        print_json(vars(done))
    else:
        for line in (*done.notes, *done.problems):
            note(line)
        print_table(("task", "lines"), list(done.lines.items()))
        print(output)
    if done.problems:
        raise _problems(len(done.problems), output)


@app.command(epilog="Example: cypher superglue check submission.zip --data SuperGLUE")
def check(
    archive: Annotated[Path, typer.Argument(metavar="ZIP", help="A submission.")],
    data: DataOption = None,
    split: SplitOption = "test",
    json: JsonOption = False,
) -> None:
    """Check that the leaderboard would take an archive; with --data, that it answers every row of it."""
    from cypher.apps.superglue.check_submission import check_archive
    from cypher.apps.superglue.submit import split_rows

    problems = check_archive(archive, split_rows(data, split) if data else None)
    if json:
        print_json({"path": archive, "problems": problems})
    else:
        for problem in problems:
            print(problem)
        if not problems:
            print(f"{archive} is valid")
    if problems:
        raise _problems(len(problems), archive)


def _problems(count: int, archive: Path) -> CypherError:
    return CypherError(f"{archive} has {count} problem{'s' if count > 1 else ''}", change="see the lines above")
