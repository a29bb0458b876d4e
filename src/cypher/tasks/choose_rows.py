"""Rows of a table as texts with candidates: a list in one column, or a column for each."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from cypher.config import ChooseConfig
from cypher.errors import DataError
from cypher.tasks.choose import ChooseRow
from cypher.tasks.table_rows import Fields, TableRows, rows_of_source, text_of
from cypher.tasks.task_kind import Record, Source

NUMBERED = tuple(f"choice_{number}" for number in range(1, 11))
"""Fields for candidates in columns of their own, in their order."""


class ChooseRows(TableRows[ChooseRow]):
    """Tables with the candidates in one column, unless ``data.columns`` names one for each."""

    def records(self, config: ChooseConfig, source: Source) -> Iterator[Record]:
        """Rows one by one."""
        numbered = tuple(name for name in NUMBERED if name in source.columns)
        targets = self.fields.targets if source.with_targets else ()

        def make(values: Mapping[str, Any], place: str) -> ChooseRow:
            return self.make(config, values, place)

        yield from rows_of_source(source, needed=("text", *(numbered or ("choices",)), *targets), make=make)


def _make(config: ChooseConfig, values: Mapping[str, Any], place: str) -> ChooseRow:
    numbered = [name for name in NUMBERED if name in values]
    choices = [text_of(values[name], name, place) for name in numbered] or _choices(values["choices"], place)
    if len(choices) < 2:
        raise DataError(f"{place} has {len(choices)} choices", needed="2 or more")
    label = _label(values["label"], choices, place) if "label" in values else None
    return ChooseRow(text=text_of(values["text"], "text", place), choices=tuple(choices), label=label)


def _choices(value: Any, place: str) -> list[str]:
    """A list, which a format of text alone holds as JSON."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            value = None
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise DataError(
            f"{place}: choices is no list",
            needed="a list of texts (as JSON where the format has no lists)",
            change="or name a column for each: data.columns.choice_1, choice_2, …",
        )
    return [text_of(choice, "a choice", place) for choice in value]


def _label(value: Any, choices: Sequence[str], place: str) -> int:
    """The right candidate, by its place from 0 or by its own text."""
    if isinstance(value, str) and choices.count(value) == 1:
        return choices.index(value)
    number = int(value) if isinstance(value, str) and value.strip().isdecimal() else value
    if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number < len(choices):
        raise DataError(
            f"{place}: label is {value!r}",
            needed=f"0 to {len(choices) - 1}, the place of the right choice, or its text",
        )
    return number


def _settle(config: ChooseConfig, rows: Sequence[ChooseRow], others: Sequence[ChooseRow]) -> ChooseConfig:
    """The rows say nothing that the configuration needs."""
    return config


def _check(config: ChooseConfig, row: ChooseRow) -> None:
    """A row that could be made fits."""


ROWS = ChooseRows(
    fields=Fields(inputs=("text",), optional=("choices", *NUMBERED), targets=("label",)),
    make=_make,
    settle=_settle,
    check=_check,
)
