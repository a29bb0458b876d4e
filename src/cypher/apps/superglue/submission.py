"""A submission to the leaderboard: the lines of every task to the letter, and the zip of ten files.

- The ``idx`` is the file's own; ReCoRD's is its query's, a number.
- BoolQ and WiC write the texts ``"true"`` and ``"false"``, WSC ``"True"`` and ``"False"``; COPA the numbers 0 and 1.
- MultiRC is nested as its file is; CB, RTE, AX-b and AX-g write their labels.
- Ten files named after the tasks lie at the top level of the archive.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from cypher.apps.superglue.benchmark import TASKS, BenchmarkTask
from cypher.apps.superglue.rows import MultiRcRow, RecordRow, Row
from cypher.files import replacing

# The same predictions give the same bytes.
_WRITTEN = (1980, 1, 1, 0, 0, 0)


def file_name(task: BenchmarkTask) -> str:
    """The name of a task's file in the archive."""
    return f"{task.name}.jsonl"


def submission_label(task: BenchmarkTask, label: bool | int | str) -> str | int:
    """A label as a submission writes it.

    Example:
        >>> [submission_label(TASKS[key], True) for key in ("boolq", "wic", "wsc")]
        ['true', 'true', 'True']
    """
    if task.key == "wsc":
        return "True" if label else "False"
    if isinstance(label, bool):
        return "true" if label else "false"
    return label


def submission_lines(task: BenchmarkTask, rows: Sequence[Row], predictions: Sequence[Any]) -> list[dict[str, Any]]:
    """One object a line of the task's file, in the order of the rows.

    Args:
        task: Which one.
        rows: Of its test file.
        predictions: One a row; see ``predictions.py``.
    """
    lines: list[dict[str, Any]] = []
    for row, prediction in zip(rows, predictions, strict=True):
        if isinstance(row, MultiRcRow):
            questions = [
                {
                    "idx": question.idx,
                    "answers": [
                        {"idx": answer.idx, "label": int(label)}
                        for answer, label in zip(question.answers, labels, strict=True)
                    ],
                }
                for question, labels in zip(row.questions, prediction, strict=True)
            ]
            lines.append({"idx": row.idx, "passage": {"questions": questions}})
        elif isinstance(row, RecordRow):
            lines += [{"idx": query.idx, "label": text} for query, text in zip(row.queries, prediction, strict=True)]
        else:
            lines.append({"idx": row.idx, "label": submission_label(task, prediction)})
    return lines


def predictions_from_lines(task: BenchmarkTask, rows: Sequence[Row], lines: Iterable[Mapping[str, Any]]) -> list[Any]:
    """The way back: lines of a valid file to one prediction a row."""
    by_idx = {line["idx"]: line for line in lines}
    found: list[Any] = []
    for row in rows:
        if isinstance(row, MultiRcRow):
            labels = {
                (question["idx"], answer["idx"]): answer["label"]
                for question in by_idx[row.idx]["passage"]["questions"]
                for answer in question["answers"]
            }
            found.append(
                tuple(
                    tuple(labels[question.idx, answer.idx] for answer in question.answers) for question in row.questions
                )
            )
        elif isinstance(row, RecordRow):
            found.append(tuple(by_idx[query.idx]["label"] for query in row.queries))
        else:
            written = by_idx[row.idx]["label"]
            found.append(next(label for label in task.labels if submission_label(task, label) == written))
    return found


def jsonl(lines: Iterable[Mapping[str, Any]]) -> str:
    """Lines as the text of a file."""
    return "".join(json.dumps(line) + "\n" for line in lines)


def write_archive(path: Path, lines_of: Mapping[str, Sequence[Mapping[str, Any]]]) -> Path:
    """Write the zip, whole or not at all.

    Args:
        path: Of the archive.
        lines_of: Key of a task → its lines; all ten.
    """
    assert set(lines_of) == set(TASKS), "a submission has ten files"
    with replacing(path) as partial, zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED) as archive:
        for key, task in TASKS.items():
            entry = zipfile.ZipInfo(file_name(task), date_time=_WRITTEN)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, jsonl(lines_of[key]))
    return path
