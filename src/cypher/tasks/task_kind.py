"""What a ``[task] kind`` stands for: how it is built, where its rows come from, how what it predicts is told."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Protocol, runtime_checkable

from cypher.config import Recipe
from cypher.data.table import BadRows
from cypher.models.load import LoadedModel
from cypher.train.task import Task


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A recipe's rows, and its task with all that only they could say.

    Args:
        config: Of the task; names of labels and the like are filled in.
        rows: Gives training and development rows.
        skipped: Rows that were left out because they could not be read.
    """

    config: Any
    rows: Callable[[], tuple[list[Any], list[Any]]]
    skipped: int = 0


@dataclass(frozen=True, kw_only=True)
class Record:
    """A row of a file that a trained task is used on.

    Args:
        row: As the task takes it.
        fields: Everything the file says of it.
    """

    row: Any
    fields: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Source:
    """Rows to use a trained task on.

    Args:
        path: Of the file or folder; what is told of it in errors where ``stream`` is given.
        stream: JSON lines that come one by one.
        columns: Field of the task → column of the file.
        with_targets: Whether every row must say what would be right.
        bad: What is done with rows that cannot be read.
    """

    path: Path
    stream: IO[bytes] | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    with_targets: bool = False
    bad: BadRows = field(default_factory=BadRows)


class RowSource(Protocol):
    """Where a task's rows come from."""

    def prepare(self, recipe: Recipe, loaded: LoadedModel) -> Prepared:
        """What a recipe trains on.

        Raises:
            DataError: A file cannot be read, or a row in it.
        """

    def records(self, config: Any, source: Source) -> Iterator[Record]:
        """Rows one by one.

        Raises:
            DataError: The file cannot be read, or a row in it.
        """


@runtime_checkable
class TextSource(Protocol):
    """Rows that are read as texts, which a tokenizer can be trained on."""

    def texts(self, recipe: Recipe) -> Iterator[str]:
        """Of the training part alone."""


@dataclass(frozen=True, kw_only=True)
class TaskKind:
    """All that is known of a kind of task by those who know tasks by their kind alone.

    Args:
        config: Its section of a recipe.
        build: The task from that section and the model it will stand on.
        rows: Where rows come from.
        answer: What a prediction means under a calibration, as plain values by name.
        score: How good predictions are under a calibration, by metric.
        folder: Of a run, where the trained task is left.
    """

    config: type[Any]
    build: Callable[[Any, LoadedModel], Task[Any, Any, Any]]
    rows: RowSource
    answer: Callable[[Any, Any, Mapping[str, Any], Any], dict[str, Any]]
    score: Callable[[Any, Sequence[Any], Sequence[Any], Mapping[str, Any]], dict[str, float]]
    folder: str = "task"
