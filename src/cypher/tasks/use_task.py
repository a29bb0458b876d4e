"""What a run has trained, used on the rows of a file: scored where they say what is right, answered where not."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from cypher.errors import ConfigError, DataError
from cypher.tasks.registry import kind_of
from cypher.tasks.task_folder import TrainedTask, load_task
from cypher.tasks.task_kind import Record, Source

# Rows that are answered together: enough for batches of like length, few enough for memory.
CHUNK = 512


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """How well a trained task does on a file.

    Args:
        kind: Of the task.
        scores: By metric.
        rows: How many were scored.
        skipped: How many could not be read and were left out.
    """

    kind: str
    scores: dict[str, float]
    rows: int
    skipped: int


def evaluate(folder: Path, source: Source) -> Evaluation:
    """Score a trained task under the calibration that its run has found.

    Args:
        folder: Of the trained task, as :func:`cypher.tasks.find_task.find_task` finds it.
        source: Rows that say what is right; ``columns`` and ``with_targets`` need not be set.

    Raises:
        ModelError: The folder holds no trained task.
        DataError: The file or a row of it cannot be read.
    """
    trained = load_task(folder)
    kind = kind_of(trained.task.kind)
    rows, predictions = [], []
    for record, prediction in _predicted(trained, _completed(trained, source, with_targets=True), chunk=CHUNK):
        rows.append(record.row)
        predictions.append(prediction)
    if not rows:
        raise DataError(f"{source.path} has no rows", needed="at least one")
    scores = kind.score(trained.task, rows, predictions, trained.calibration)
    return Evaluation(kind=trained.task.kind, scores=scores, rows=len(rows), skipped=source.bad.skipped)


def predict(folder: Path, source: Source) -> Iterator[dict[str, Any]]:
    """Answer rows in their order: each with the fields it came with, and ``prediction`` and ``probability`` added.

    Rows that come from a stream are answered one by one, so that who writes them can wait for each.

    Args:
        folder: Of the trained task, as :func:`cypher.tasks.find_task.find_task` finds it.
        source: Rows; ``columns`` need not be set.

    Raises:
        ModelError: The folder holds no trained task.
        DataError: The file or a row of it cannot be read, or a row has a field of those names already.
    """
    trained = load_task(folder)
    answer = kind_of(trained.task.kind).answer
    chunk = CHUNK if source.stream is None else 1
    for record, prediction in _predicted(trained, _completed(trained, source, with_targets=False), chunk=chunk):
        found = answer(trained.task, prediction, trained.calibration, record.row)
        if taken := sorted(set(found) & set(record.fields)):
            raise DataError(
                f'{source.path} has a field "{taken[0]}" already', change="rename it: nothing that came in is replaced"
            )
        yield {**record.fields, **found}


def as_line(values: Mapping[str, Any], *, ascii_only: bool = False) -> str:
    """One row as a line of JSON; what JSON has no form for, such as a date, is written as text."""
    return json.dumps(values, ensure_ascii=ascii_only, default=str)


def _completed(trained: TrainedTask, source: Source, *, with_targets: bool) -> Source:
    """With the columns of the run, unless others are given for single fields."""
    return replace(source, columns={**trained.columns, **source.columns}, with_targets=with_targets)


def _predicted(trained: TrainedTask, source: Source, *, chunk: int) -> Iterator[tuple[Record, Any]]:
    rows = kind_of(trained.task.kind).rows
    records = rows.records(trained.config, source)
    trained.model.model.pack("fp32")
    for first in records:
        part = [first, *islice(records, chunk - 1)]
        with torch.inference_mode():
            predictions = trained.task.predict(trained.model, [record.row for record in part])
        yield from zip(part, predictions, strict=True)


def columns_of(pairs: list[str]) -> dict[str, str]:
    """``FIELD=COLUMN`` each.

    Raises:
        ConfigError: One is none.

    Example:
        >>> columns_of(["text=sentence"])
        {'text': 'sentence'}
    """
    found = {}
    for pair in pairs:
        field, equals, column = pair.partition("=")
        if not (field and equals and column):
            raise ConfigError(f"--column {pair!r}", needed="FIELD=COLUMN", change="for example --column text=sentence")
        found[field] = column
    return found
