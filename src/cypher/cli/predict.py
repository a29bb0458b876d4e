"""``cypher predict``: what a run has trained, used on a file or on rows as they come."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from cypher.cli.console import note, progress_bars
from cypher.cli.evaluate import ColumnOption, SkipOption, ThreadsOption

app = typer.Typer(help="Use what a run has trained on a file, or on rows as they come.")


@app.command(epilog="Example: cypher predict runs/banking77_intents questions.csv --output answered.jsonl")
def predict(
    run: Annotated[str, typer.Argument(metavar="RUN", help="Folder of a finished run, such as runs/NAME.")],
    file: Annotated[
        str,
        typer.Argument(
            metavar="FILE",
            help="Rows: .jsonl, .csv, .tsv, .parquet, a saved data set, a catalogued name; - reads JSON lines from "
            "stdin and answers each as it comes.",
        ),
    ],
    output: Annotated[
        str, typer.Option("--output", metavar="FILE", help="Where JSON lines are written; - is stdout.")
    ] = "-",
    columns: ColumnOption = None,
    skip_bad_rows: SkipOption = False,
    threads: ThreadsOption = None,
) -> None:
    """Add a prediction and its probability to every row of a file; the result is JSON lines."""
    from cypher.data.fetch import locate
    from cypher.tasks.find_task import find_task

    folder = find_task(run)
    with progress_bars(of_bytes=True) as progress:
        path = Path("stdin") if file == "-" else locate(file, progress=progress)
    import torch

    from cypher.data.table import BadRows
    from cypher.files import replacing
    from cypher.tasks.task_kind import Source
    from cypher.tasks.use_task import as_line, columns_of
    from cypher.tasks.use_task import predict as predict_rows

    if threads is not None:
        torch.set_num_threads(threads)
    source = Source(
        path=path,
        stream=sys.stdin.buffer if file == "-" else None,
        columns=columns_of(columns or []),
        bad=BadRows(skip=skip_bad_rows),
    )
    rows = predict_rows(folder, source)
    if output == "-":
        for row in rows:
            # A terminal may lack characters, and what stands for them would be no JSON.
            print(as_line(row, ascii_only=True), flush=file == "-")
    else:
        with replacing(output) as partial, partial.open("w", encoding="utf-8") as target:
            target.writelines(as_line(row) + "\n" for row in rows)
    if source.bad.skipped:
        note(f"{source.bad.skipped} rows could not be read and were left out")
