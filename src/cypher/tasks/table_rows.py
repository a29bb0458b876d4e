"""Rows of tables as rows of a task: columns by the task's own names, labels and scales from the data, parts by hash."""

from __future__ import annotations

import difflib
import json
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from cypher.config import Recipe
from cypher.data.fetch import locate
from cypher.data.splits import assign
from cypher.data.table import BadRows, TableRow, read_json_lines, read_table
from cypher.errors import ConfigError, DataError
from cypher.models.load import LoadedModel
from cypher.tasks.task_kind import Prepared, Record, Source

Row = TypeVar("Row")


@dataclass(frozen=True, kw_only=True)
class Fields:
    """What a task reads of a table.

    Args:
        inputs: Fields that every row needs.
        optional: Fields that are read where ``data.columns`` names them.
        targets: Fields that say what is right, needed to train and to evaluate.
    """

    inputs: tuple[str, ...]
    optional: tuple[str, ...] = ()
    targets: tuple[str, ...] = ()

    @property
    def all(self) -> tuple[str, ...]:
        """Every field."""
        return (*self.inputs, *self.optional, *self.targets)


@dataclass(frozen=True, kw_only=True)
class TableRows(Generic[Row]):
    """Where the rows of a task come from that is trained on tables.

    Args:
        fields: What it reads.
        make: A row of the task from its configuration, the fields by name, and the place for errors.
        settle: The configuration with what only the rows can say, from those to learn from and all others.
        check: Raises if a row does not fit the settled configuration.
        resample: Rows to learn from in other proportions.
    """

    fields: Fields
    make: Callable[[Any, Mapping[str, Any], str], Row]
    settle: Callable[[Any, Sequence[Row], Sequence[Row]], Any]
    check: Callable[[Any, Row], None]
    resample: Callable[[Sequence[Row], int], list[Row]] | None = None

    def prepare(self, recipe: Recipe, loaded: LoadedModel) -> Prepared:
        """Read all files, divide them, and fill in what the task needs to know of them.

        Raises:
            DataError: A file or a row cannot be read, or a row does not fit.
            ConfigError: ``data.columns`` names a field that the task has not.
        """
        data, bad = recipe.data, BadRows(skip=recipe.data.skip_bad_rows)
        columns = data.columns
        if unknown := sorted(set(columns) - set(self.fields.all)):
            near = difflib.get_close_matches(unknown[0], self.fields.all, n=1)
            raise ConfigError(
                f"data.columns.{unknown[0]}",
                needed=f"a field of {recipe.task.kind}: {', '.join(self.fields.all)}",
                change=f"did you mean {near[0]}?" if near else None,
            )

        def read(names: Sequence[str], *, training: bool) -> list[Record]:
            sources = [locate(name, training=training) for name in names]
            return [
                record
                for path in sources
                for record in self.records(recipe.task, Source(path=path, columns=columns, with_targets=True, bad=bad))
            ]

        found = read(data.train, training=True)
        if data.development:
            train, development = found, read(data.development, training=False)
        else:
            train, development = self._divided(found, columns, data.development_fraction)
        rows, held = [record.row for record in train], [record.row for record in development]
        # Of a share that was held out by chance every label is known; a file of its own may hold mistakes.
        config = self.settle(recipe.task, rows, [] if data.development else held)
        kept, held = self._fitting(config, rows, bad), self._fitting(config, held, bad)
        if data.limit is not None and len(kept) > data.limit:
            chosen = random.Random(0).sample(range(len(kept)), data.limit)  # noqa: S311 - a choice of rows
            kept = [kept[place] for place in sorted(chosen)]
        if data.sampling == "balanced" and self.resample is not None:
            kept = self.resample(kept, recipe.train.seed)
        return Prepared(config=config, rows=lambda: (kept, held), skipped=bad.skipped)

    def records(self, config: Any, source: Source) -> Iterator[Record]:
        """Rows one by one; those that a settled configuration does not fit are bad rows."""

        def make(values: Mapping[str, Any], place: str) -> Row:
            row = self.make(config, values, place)
            self.check(config, row)
            return row

        needed = (*self.fields.inputs, *(self.fields.targets if source.with_targets else ()))
        optional = tuple(field for field in self.fields.optional if field in source.columns)
        yield from rows_of_source(source, needed=(*needed, *optional), make=make)

    def _divided(
        self, records: Sequence[Record], columns: Mapping[str, str], fraction: float
    ) -> tuple[list[Record], list[Record]]:
        parts: dict[str, list[Record]] = {"train": [], "development": []}
        fractions = {"train": 1 - fraction, "development": fraction}
        read = [columns.get(field, field) for field in (*self.fields.inputs, *self.fields.optional)]
        for record in records:
            key = json.dumps([record.fields.get(column) for column in read], default=str)
            parts[assign(key, fractions=fractions)].append(record)
        return parts["train"], parts["development"]

    def _fitting(self, config: Any, rows: Sequence[Row], bad: BadRows) -> list[Row]:
        kept = []
        for row in rows:
            try:
                self.check(config, row)
            except DataError as error:
                bad.report(error)
                continue
            kept.append(row)
        return kept


def rows_of_source(
    source: Source, *, needed: Sequence[str], make: Callable[[Mapping[str, Any], str], Any]
) -> Iterator[Record]:
    """Rows of a table with the fields a task needs.

    Args:
        source: The table.
        needed: Fields of the task; each is a column of that name unless ``source.columns`` says otherwise.
        make: A row of the task from the fields by name, and the place for errors.

    Raises:
        DataError: The table or a row cannot be read, or lacks a column.
    """
    columns = {field: source.columns.get(field, field) for field in needed}
    if source.stream is not None:
        table = read_json_lines(source.stream, name=str(source.path), bad=source.bad)
    else:
        table = read_table(source.path, bad=source.bad)
    n_rows = 0
    for found in table:
        try:
            row = make(_fields(found, columns), found.place)
        except DataError as error:
            source.bad.report(error)
            continue
        n_rows += 1
        yield Record(row=row, fields=found.values)
    if not n_rows and source.bad.first is not None:
        raise DataError(f"{source.path} has no row that can be read; the first bad one: {source.bad.first}")


def _fields(found: TableRow, columns: Mapping[str, str]) -> dict[str, Any]:
    values = {}
    for field, column in columns.items():
        if found.values.get(column) is None:
            raise _missing(found.values, field, column, found.place)
        values[field] = found.values[column]
    return values


def _missing(values: Mapping[str, Any], field: str, column: str, place: str) -> DataError:
    if column in values:
        return DataError(f'{place} has no value in "{column}"', needed="one in every row")
    return DataError(
        f'{place} has no "{column}"; it has {", ".join(sorted(values)) or "nothing"}',
        change=f"set data.columns.{field} (or --column {field}=…) to the column that holds it",
    )


def text_of(value: Any, field: str, place: str) -> str:
    """A field that must be text and not blank.

    Raises:
        DataError: It is something else.
    """
    if not isinstance(value, str):
        raise DataError(f"{place}: {field} is a {type(value).__name__}", needed="text")
    if not value.strip():
        raise DataError(f"{place}: {field} is empty", needed="text")
    if any("\ud800" <= character <= "\udfff" for character in value):
        raise DataError(f"{place}: {field} holds half of a surrogate pair", needed="whole characters")
    return value
