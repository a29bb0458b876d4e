"""Rows of a table as two spans, given by their characters, with a label."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cypher.config import ClassifySpanPairConfig
from cypher.errors import DataError
from cypher.tasks.classify_rows import label_text
from cypher.tasks.classify_span_pair import SpanPairRow
from cypher.tasks.table_rows import Fields, TableRows, text_of

_BORDERS = ("first_start", "first_end", "second_start", "second_end")


def _make(config: ClassifySpanPairConfig, values: Mapping[str, Any], place: str) -> SpanPairRow:
    text = text_of(values["text"], "text", place)
    pair = text_of(values["pair"], "pair", place) if "pair" in values else None
    borders = [_whole(values[name], name, place) for name in _BORDERS]
    spans = (borders[0], borders[1]), (borders[2], borders[3])
    for name, (start, end), where in zip(
        ("first", "second"), spans, (text, text if pair is None else pair), strict=True
    ):
        if not 0 <= start < end <= len(where) or not where[start:end].strip():
            raise DataError(
                f"{place}: the {name} span is characters {start} to {end} of a text of {len(where)}",
                needed="a stretch with text in it, counted in characters from 0, its end not included",
            )
    label = label_text(values["label"], place) if "label" in values else None
    return SpanPairRow(text=text, pair=pair, first=spans[0], second=spans[1], label=label, place=place)


def _whole(value: Any, name: str, place: str) -> int:
    if isinstance(value, str) and value.strip().isdecimal():
        return int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise DataError(f"{place}: {name} is {value!r}", needed="a whole number")
    return value


def _settle(
    config: ClassifySpanPairConfig, rows: Sequence[SpanPairRow], others: Sequence[SpanPairRow]
) -> ClassifySpanPairConfig:
    """With the labels of all rows, sorted."""
    if config.labels is not None:
        return config
    labels = tuple(sorted({row.label for row in (*rows, *others) if row.label is not None}))
    if len(labels) < 2:
        raise DataError(f"all {len(rows) + len(others)} rows have the label {''.join(labels)!r}", needed="2 labels")
    return ClassifySpanPairConfig.model_validate({**config.model_dump(), "labels": labels})


def _check(config: ClassifySpanPairConfig, row: SpanPairRow) -> None:
    """The label must be one of the task's, once these are known."""
    if config.labels is not None and row.label is not None and row.label not in config.labels:
        raise DataError(
            f"{row.place}: label {row.label!r} is not one of the task's", needed=f"one of {', '.join(config.labels)}"
        )


ROWS = TableRows(
    fields=Fields(inputs=("text", *_BORDERS), optional=("pair",), targets=("label",)),
    make=_make,
    settle=_settle,
    check=_check,
)
