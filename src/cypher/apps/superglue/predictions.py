"""What is predicted for a row, task by task, and the majority's answer.

A prediction has the type of the row's label; for a passage of MultiRC it is a 0 or 1 for each answer of each question,
for an article of ReCoRD the text of an entity for each query.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from cypher.apps.superglue.benchmark import BenchmarkTask
from cypher.apps.superglue.rows import MultiRcRow, RecordRow, Row
from cypher.errors import DataError

MultiRcPrediction: TypeAlias = tuple[tuple[int, ...], ...]
RecordPrediction: TypeAlias = tuple[str, ...]
Prediction: TypeAlias = bool | int | str | MultiRcPrediction | RecordPrediction


@dataclass(frozen=True, kw_only=True)
class Majority:
    """Answers every row alike: what no model should fall behind.

    Args:
        label: The most frequent label of the training rows; ``None`` for ReCoRD, where it is each article's entity
            that is mentioned most often.
    """

    label: bool | int | str | None

    def predict(self, rows: Sequence[Row]) -> list[Any]:
        """One prediction a row."""
        found: list[Any] = []
        for row in rows:
            if isinstance(row, RecordRow):
                # Of equally frequent ones the first in the article.
                entity = Counter(row.mentions).most_common(1)[0][0]
                found.append((entity,) * len(row.queries))
            elif isinstance(row, MultiRcRow):
                found.append(tuple((self.label,) * len(question.answers) for question in row.questions))
            else:
                found.append(self.label)
        return found


def majority(task: BenchmarkTask, rows: Sequence[Row]) -> Majority:
    """The majority of a task's training rows; of equally frequent labels the first of ``task.labels``.

    Raises:
        DataError: No row has a label.
    """
    if not task.labels:
        return Majority(label=None)
    counts = Counter(label for row in rows for label in labels_of(row))
    if not counts:
        raise DataError(f"none of {len(rows)} rows of {task.name} has a label", needed="training rows")
    return Majority(label=max(task.labels, key=lambda label: counts[label]))


def labels_of(row: Row) -> list[Any]:
    """Every label of a row that has any: one, or those of MultiRC's answers."""
    if isinstance(row, RecordRow):
        return []
    if isinstance(row, MultiRcRow):
        labels = [answer.label for question in row.questions for answer in question.answers]
    else:
        labels = [row.label]  # type: ignore[list-item]
    return [label for label in labels if label is not None]
