"""``cypher superglue``: run, table, submit, check."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from cypher.cli.console import JsonOption, print_json, print_table
from cypher.errors import CypherError

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
