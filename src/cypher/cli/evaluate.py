"""``cypher evaluate``: the scores of what a run has trained on a file."""

from __future__ import annotations

from typing import Annotated

import typer

from cypher.cli.console import JsonOption, note, print_json, print_table, progress_bars

app = typer.Typer(help="Score what a run has trained on a file.")

ColumnOption = Annotated[
    list[str] | None,
    typer.Option(
        "--column", metavar="FIELD=COLUMN", help="Where the file calls a field otherwise than the run's files did."
    ),
]
SkipOption = Annotated[
    bool, typer.Option("--skip-bad-rows", help="Leave out rows that cannot be read, and tell how many.")
]
ThreadsOption = Annotated[
    int | None, typer.Option("--threads", min=1, help="Processor cores to use; all unless given.")
]


@app.command(epilog="Example: cypher evaluate runs/banking77_intents banking77/test")
def evaluate(
    run: Annotated[str, typer.Argument(metavar="RUN", help="Folder of a finished run, such as runs/NAME.")],
    file: Annotated[
        str,
        typer.Argument(
            metavar="FILE",
            help="Rows that say what is right: .jsonl, .csv, .tsv, .parquet, a saved data set, a catalogued name; "
            "for extract_span SQuAD's .json.",
        ),
    ],
    columns: ColumnOption = None,
    skip_bad_rows: SkipOption = False,
    threads: ThreadsOption = None,
    json: JsonOption = False,
) -> None:
    """Score what a run has trained on a file, under the thresholds that were found in training."""
    from cypher.data.fetch import locate
    from cypher.tasks.find_task import find_task

    folder = find_task(run)
    with progress_bars(of_bytes=True) as progress:
        path = locate(file, progress=progress)
    import torch

    from cypher.data.table import BadRows
    from cypher.tasks.task_kind import Source
    from cypher.tasks.use_task import columns_of
    from cypher.tasks.use_task import evaluate as evaluate_task

    if threads is not None:
        torch.set_num_threads(threads)
    source = Source(path=path, columns=columns_of(columns or []), bad=BadRows(skip=skip_bad_rows))
    found = evaluate_task(folder, source)
    if json:
        print_json(
            {
                "run": run,
                "file": path,
                "kind": found.kind,
                "rows": found.rows,
                "skipped_rows": found.skipped,
                "scores": found.scores,
            }
        )
        return
    if found.skipped:
        note(f"{found.skipped} rows could not be read and were left out")
    print_table(("score", "value"), [(name, f"{value:.2f}") for name, value in found.scores.items()])
