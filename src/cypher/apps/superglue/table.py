"""Our runs beside the leaderboard: one table as rows, as cells of text and as a page."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cypher.apps.superglue.benchmark import SCORED, TASKS
from cypher.apps.superglue.metrics import benchmark_score
from cypher.apps.superglue.published import PUBLISHED
from cypher.errors import DataError

SCORES_FILE = "scores.json"
NOTHING = "–"
"""In the place of a figure that there is none of."""


@dataclass(frozen=True, kw_only=True)
class TableRow:
    """One system; figures in percent.

    Args:
        name: Of the system, or the folder of the run.
        score: The mean over the eight tasks; ``None`` unless all of them are there.
        metrics: Key of a task → its metrics by name.
        source: Where the figures come from, and which rows they are of.
    """

    name: str
    score: float | None
    metrics: Mapping[str, Mapping[str, float]]
    source: str


def read_scores(run: Path) -> dict[str, Any]:
    """The ``scores.json`` of a run, in fractions.

    Raises:
        DataError: There is none, or it is another file.
    """
    path = run / SCORES_FILE
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(values, dict) and isinstance(values["tasks"], dict):
            return values
        reason = "it has no tasks"
    except (OSError, ValueError, KeyError) as error:
        reason = str(error) or type(error).__name__
    raise DataError(f"{path} cannot be read ({reason})", needed="the folder of a cypher superglue run")


def run_rows(run: Path) -> list[TableRow]:
    """A run's own row, and one of the majority on the same rows.

    Raises:
        DataError: The folder holds no run.
    """
    scores = read_scores(run)
    what = f"{scores['model']} with {scores['adapter']}{', few-shot' if scores['few_shot'] else ''}"
    found = []
    for name, kind in ((f"{run.name} ({what})", "metrics"), ("majority of the training rows", "majority")):
        metrics = {
            key: {metric: 100 * value for metric, value in scores["tasks"][key][kind].items()}
            for key in TASKS
            if key in scores["tasks"]
        }
        found.append(
            TableRow(name=name, score=benchmark_score(metrics), metrics=metrics, source=f"{run}, {_reported(scores)}")
        )
    return found


def _reported(scores: Mapping[str, Any]) -> str:
    """Which rows were reported on, told once for the tasks that share it."""
    by_part: dict[str, list[str]] = {}
    for key, task in scores["tasks"].items():
        by_part.setdefault(task["origin"]["report"], []).append(TASKS[key].name)
    return "; ".join(
        part if len(by_part) == 1 else f"{', '.join(names)}: {part}" for part, names in sorted(by_part.items())
    )


def table_rows(runs: Sequence[Path]) -> list[TableRow]:
    """Ours first, then the published ones from the best to the simplest."""
    ours = [row for run in runs for row in run_rows(run)]
    published = [TableRow(name=row.name, score=row.score, metrics=row.metrics, source=row.source) for row in PUBLISHED]
    return [*ours, *published]


def columns(rows: Sequence[TableRow]) -> list[str]:
    """Headings: each task with its metrics, diagnostics only where a row has them."""
    return ["system", "score", *(_heading(key) for key in shown_tasks(rows)), "source"]


def cells(row: TableRow, keys: Sequence[str]) -> list[str]:
    """One line of the table: two metrics of a task divided by a slash, as on the leaderboard."""
    figures = []
    for key in keys:
        metrics = row.metrics.get(key)
        figures.append(NOTHING if metrics is None else "/".join(f"{metrics[name]:.1f}" for name in TASKS[key].metrics))
    return [row.name, NOTHING if row.score is None else f"{row.score:.1f}", *figures, row.source]


def shown_tasks(rows: Sequence[TableRow]) -> list[str]:
    """Keys of the tasks that have a column."""
    return [key for key in TASKS if key in SCORED or any(key in row.metrics for row in rows)]


def table_page(rows: Sequence[TableRow]) -> str:
    """The table as a page that needs nothing else; sources are numbered below it."""
    from cypher.report import escaped, page

    keys = shown_tasks(rows)
    sources = list(dict.fromkeys(row.source for row in rows))
    head = "".join(f"<th>{escaped(column)}</th>" for column in columns(rows))
    body = []
    for row in rows:
        texts = [*cells(row, keys)[:-1], f"[{sources.index(row.source) + 1}]"]
        body.append("<tr>" + "".join(f"<td>{escaped(text)}</td>" for text in texts) + "</tr>")
    notes = "".join(f"<li>{escaped(source)}</li>" for source in sources)
    return page(
        "SuperGLUE",
        [
            f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(body)}</tbody></table>",
            "<p>All figures in percent. The score is the mean over eight tasks of each task's mean; ours are measured "
            "on validation rows, those of the leaderboard on the hidden test set, so they compare only roughly.</p>",
            f"<h2>Sources</h2><ol>{notes}</ol>",
        ],
    )


def _heading(key: str) -> str:
    task = TASKS[key]
    names = {"accuracy": "acc", "f1": "F1", "f1a": "F1a", "em": "EM", "mcc": "MCC", "gender_parity": "parity"}
    return f"{task.name} {'/'.join(names[metric] for metric in task.metrics)}"
