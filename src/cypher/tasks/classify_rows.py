"""Rows of a table as texts with labels; the labels there are, how many rows have each, and equal shares of them."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from cypher.config import ClassifyConfig
from cypher.errors import DataError
from cypher.tasks.classify import ClassifyRow
from cypher.tasks.table_rows import Fields, TableRows, text_of


def _make(config: ClassifyConfig, values: Mapping[str, Any], place: str) -> ClassifyRow:
    pair = text_of(values["pair"], "pair", place) if "pair" in values else None
    labels = _labels(config, values["label"], place) if "label" in values else None
    return ClassifyRow(text=text_of(values["text"], "text", place), pair=pair, labels=labels, place=place)


def _labels(config: ClassifyConfig, value: Any, place: str) -> tuple[str, ...]:
    if not config.multi_label:
        return (label_text(value, place),)
    parts = value.split(config.label_separator) if isinstance(value, str) else value
    if not isinstance(parts, list):
        parts = [parts]
    labels = [label_text(part, place) for part in parts if part != ""]
    return tuple(dict.fromkeys(labels))


def label_text(value: Any, place: str) -> str:
    """A label as text: numbers and truth values as JSON writes them."""
    if isinstance(value, str) and value.strip():
        return value.strip()
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # a column of whole numbers with gaps is one of floats to whoever wrote it
    if isinstance(value, (bool, int)):
        return json.dumps(value)
    given = "empty" if isinstance(value, str) else f"a {type(value).__name__}"
    raise DataError(f"{place}: label is {given}", needed="text or a whole number")


def _settle(config: ClassifyConfig, rows: Sequence[ClassifyRow], others: Sequence[ClassifyRow]) -> ClassifyConfig:
    """With the labels of all rows, sorted, and how many rows have each."""
    labels = config.labels
    if labels is None:
        labels = tuple(sorted({label for row in (*rows, *others) for label in row.labels or ()}))
        if len(labels) < 2:
            raise DataError(f"all {len(rows) + len(others)} rows have the label {''.join(labels)!r}", needed="2 labels")
    counts = Counter(label for row in rows for label in row.labels or ())
    label_counts = config.label_counts or tuple(counts[label] for label in labels)
    return ClassifyConfig.model_validate({**config.model_dump(), "labels": labels, "label_counts": label_counts})


def _check(config: ClassifyConfig, row: ClassifyRow) -> None:
    """Every label must be one of the task's, once these are known."""
    if config.labels is None:
        return
    for label in row.labels or ():
        if label not in config.labels:
            shown = ", ".join(config.labels[:8]) + (", …" if len(config.labels) > 8 else "")
            raise DataError(f"{row.place}: label {label!r} is not one of the task's", needed=f"one of {shown}")


def balanced(rows: Sequence[ClassifyRow], seed: int) -> list[ClassifyRow]:
    """Rows of rarer labels repeated until every label has as many as the most frequent one.

    Each row of a label comes equally often, but for a rest that is drawn.
    """
    draw = random.Random(f"{seed}/balanced")  # noqa: S311 - a choice of rows, not a secret
    of_label: dict[str, list[ClassifyRow]] = {}
    for row in rows:
        of_label.setdefault((row.labels or ("",))[0], []).append(row)
    most = max(map(len, of_label.values()), default=0)
    made: list[ClassifyRow] = []
    for label in sorted(of_label):
        own = of_label[label]
        made += own * (most // len(own)) + draw.sample(own, most % len(own))
    return made


ROWS = TableRows(
    fields=Fields(inputs=("text",), optional=("pair",), targets=("label",)),
    make=_make,
    settle=_settle,
    check=_check,
    resample=balanced,
)
