"""The ten tasks of SuperGLUE: how each is called, read, scored and kept whole when rows are divided."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cypher.apps.superglue.jsonl import Fields, read_jsonl
from cypher.apps.superglue.rows import (
    CB_LABELS,
    RTE_LABELS,
    BoolQRow,
    MultiRcRow,
    RecordRow,
    Row,
    WicRow,
    WscRow,
    entailment_parser,
    parse_boolq,
    parse_copa,
    parse_multirc,
    parse_record,
    parse_wic,
    parse_wsc,
)
from cypher.errors import ConfigError, DataError


@dataclass(frozen=True, kw_only=True)
class BenchmarkTask:
    """One task.

    Args:
        key: As it is typed on the command line.
        name: Of its folder in the data and of its file in a submission.
        metrics: Those of the leaderboard; their mean is the task's score.
        labels: A row's label is one of these; empty where the answer is an entity of the passage.
        parse: A line of its files to a row.
        test_size: Rows of the official test file, whose ``idx`` count from 0; ``None`` where lines are nested.
        diagnostic_of: The task whose model answers this one; a diagnostic set is not in the mean.
        validation_only: The published training file may be missing; the validation file is then divided.
    """

    key: str
    name: str
    metrics: tuple[str, ...]
    labels: tuple[Any, ...]
    parse: Callable[[Fields], Row]
    test_size: int | None
    diagnostic_of: str | None = None
    validation_only: bool = False


TASKS = {
    task.key: task
    for task in (
        BenchmarkTask(
            key="boolq",
            name="BoolQ",
            metrics=("accuracy",),
            labels=(False, True),
            parse=parse_boolq,
            test_size=3245,
            validation_only=True,
        ),
        BenchmarkTask(
            key="cb",
            name="CB",
            metrics=("f1", "accuracy"),
            labels=CB_LABELS,
            parse=entailment_parser(CB_LABELS),
            test_size=250,
        ),
        BenchmarkTask(key="copa", name="COPA", metrics=("accuracy",), labels=(0, 1), parse=parse_copa, test_size=500),
        BenchmarkTask(
            key="multirc", name="MultiRC", metrics=("f1a", "em"), labels=(0, 1), parse=parse_multirc, test_size=None
        ),
        BenchmarkTask(key="record", name="ReCoRD", metrics=("f1", "em"), labels=(), parse=parse_record, test_size=None),
        BenchmarkTask(
            key="rte",
            name="RTE",
            metrics=("accuracy",),
            labels=RTE_LABELS,
            parse=entailment_parser(RTE_LABELS),
            test_size=3000,
        ),
        BenchmarkTask(
            key="wic", name="WiC", metrics=("accuracy",), labels=(False, True), parse=parse_wic, test_size=1400
        ),
        BenchmarkTask(
            key="wsc", name="WSC", metrics=("accuracy",), labels=(False, True), parse=parse_wsc, test_size=146
        ),
        BenchmarkTask(
            key="ax-b",
            name="AX-b",
            metrics=("mcc",),
            labels=RTE_LABELS,
            parse=entailment_parser(RTE_LABELS, premise="sentence1", hypothesis="sentence2"),
            test_size=1104,
            diagnostic_of="rte",
        ),
        BenchmarkTask(
            key="ax-g",
            name="AX-g",
            metrics=("gender_parity", "accuracy"),
            labels=RTE_LABELS,
            parse=entailment_parser(RTE_LABELS),
            test_size=356,
            diagnostic_of="rte",
        ),
    )
}
"""By key, in the order of the leaderboard."""

SCORED = tuple(key for key, task in TASKS.items() if task.diagnostic_of is None)
"""The eight whose mean is the score."""


def find_tasks(keys: str | Sequence[str]) -> list[BenchmarkTask]:
    """Tasks by key, comma-separated or in a list, upper or lower case; ``all`` is every one of the eight.

    Raises:
        ConfigError: No task is called so.

    Example:
        >>> [task.name for task in find_tasks("rte,CB")]
        ['CB', 'RTE']
    """
    asked = {key.strip().lower() for key in (keys.split(",") if isinstance(keys, str) else keys) if key.strip()}
    if "all" in asked:
        asked = asked - {"all"} | set(SCORED)
    unknown = sorted(asked - set(TASKS))
    if unknown or not asked:
        given = f"no task is called {unknown[0]!r}" if unknown else "no task was given"
        raise ConfigError(given, needed=f"all, or some of {', '.join(TASKS)}")
    return [task for key, task in TASKS.items() if key in asked]


def read_rows(task: BenchmarkTask, path: Path) -> list[Any]:
    """The rows of one file of a task.

    Raises:
        DataError: The file is empty or cannot be read, a line is not of the task's form, or two have one ``idx``; the
            message has file and line.
    """
    rows: list[Row] = []
    seen: dict[int, str] = {}
    for line in read_jsonl(path):
        row = task.parse(line)
        for idx in idx_of(row):
            if idx in seen:
                raise DataError(f"{line.place}: idx {idx} stands at {seen[idx]} already", needed="each idx once")
            seen[idx] = line.place
        rows.append(row)
    if not rows:
        raise DataError(f"{path} has no rows", needed=f"lines of {task.name}")
    return rows


def idx_of(row: Row) -> list[int]:
    """The numbers under which a submission answers this row: one, or ReCoRD's queries'."""
    return [query.idx for query in row.queries] if isinstance(row, RecordRow) else [row.idx]


def is_labelled(row: Row) -> bool:
    """Whether the row says what is right."""
    if isinstance(row, MultiRcRow):
        return all(answer.label is not None for question in row.questions for answer in question.answers)
    if isinstance(row, RecordRow):
        return all(query.answers is not None for query in row.queries)
    return row.label is not None


def group_of(row: Row) -> str:
    """What must not be divided between training and choosing: the text that several rows share."""
    if isinstance(row, (BoolQRow, MultiRcRow, RecordRow)):
        return row.passage
    if isinstance(row, WicRow):
        return row.word
    if isinstance(row, WscRow):
        # Schemas come in twins that differ in their last words.
        return " ".join(row.text.split()[:6])
    return row.premise
