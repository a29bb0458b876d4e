"""From a run to ``submission.zip``: its predictions, and where it has none the majority's, which is told."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from cypher.apps.superglue.benchmark import TASKS, BenchmarkTask, read_rows
from cypher.apps.superglue.check_submission import check_archive
from cypher.apps.superglue.parts import find_file, find_test_file, task_parts
from cypher.apps.superglue.predictions import Majority, majority
from cypher.apps.superglue.submission import submission_label, submission_lines, write_archive
from cypher.errors import DataError

Split = Literal["test", "val"]
Predict = Callable[[BenchmarkTask, Sequence[Any]], list[Any] | None]
"""Predictions of the run's model for rows of a task; ``None`` where the run has no model for it."""


@dataclass(frozen=True, kw_only=True)
class Submitted:
    """What was written.

    Args:
        path: The archive.
        lines: Key of a task → lines of its file.
        notes: A line for each task that is not answered by the run's own model on the split's own rows.
        problems: What the check found; none means that the leaderboard would take it.
    """

    path: Path
    lines: dict[str, int]
    notes: list[str]
    problems: list[str]


def submit(output: Path, folders: Sequence[Path], predict: Predict, *, split: Split = "test") -> Submitted:
    """Write and check a submission.

    A task without a model in the run gets the majority of its training rows. A task without a file of the split gets
    the majority for every ``idx`` of the official test set; MultiRC and ReCoRD, whose lines are nested, get an empty
    file.

    Args:
        output: The archive.
        folders: Of data; the first that has a task's folder is taken.
        predict: The run.
        split: Which file's rows are answered: ``test``, or ``val`` to try it out.

    Raises:
        DataError: A file of rows cannot be read, or the archive cannot be written.
    """
    lines_of: dict[str, list[dict[str, Any]]] = {}
    rows_of: dict[str, list[Any]] = {}
    notes: list[str] = []
    for key, task in TASKS.items():
        rows = _rows(folders, task, split)
        if rows is None:
            lines_of[key], note = _without_rows(folders, task, split)
            notes.append(note)
            continue
        rows_of[key] = rows
        predictions = predict(task, rows)
        if predictions is None:
            predictions = _majority(folders, task).predict(rows)
            notes.append(f"{task.name}: not in the run, the majority answers {len(rows)} rows")
        lines_of[key] = submission_lines(task, rows, predictions)
    write_archive(output, lines_of)
    return Submitted(
        path=output,
        lines={key: len(lines) for key, lines in lines_of.items()},
        notes=notes,
        problems=check_archive(output, rows_of),
    )


def split_rows(folders: Sequence[Path], split: Split) -> dict[str, list[Any]]:
    """The rows that a submission should answer, by key of the task, for those that have a file of the split."""
    found = {key: _rows(folders, task, split) for key, task in TASKS.items()}
    return {key: rows for key, rows in found.items() if rows is not None}


def _rows(folders: Sequence[Path], task: BenchmarkTask, split: Split) -> list[Any] | None:
    if split == "test" or task.diagnostic_of:
        path = find_test_file(folders, task)
    else:
        path = find_file(folders, task, "val") or find_file(folders, task, "dev32")
    return None if path is None else read_rows(task, path)


def _without_rows(folders: Sequence[Path], task: BenchmarkTask, split: Split) -> tuple[list[dict[str, Any]], str]:
    wanted = task.name if task.diagnostic_of else split
    missing = f"{task.name}: no {wanted}.jsonl in {' or '.join(str(folder / task.name) for folder in folders)}"
    if task.test_size is None:
        return [], f"{missing}, its file is empty"
    label = _majority(folders, task).label
    assert label is not None, "tasks whose lines are flat have labels"
    lines = [{"idx": idx, "label": submission_label(task, label)} for idx in range(task.test_size)]
    return lines, f"{missing}, the majority answers idx 0 to {task.test_size - 1} of the official one"


def _majority(folders: Sequence[Path], task: BenchmarkTask) -> Majority:
    """Of the training rows, a diagnostic's those of its task; without any, the first label there is."""
    trained_on = TASKS[task.diagnostic_of] if task.diagnostic_of else task
    try:
        return majority(trained_on, task_parts(folders, trained_on).train)
    except DataError:
        return Majority(label=task.labels[0] if task.labels else None)
