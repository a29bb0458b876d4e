"""A number for a text or a pair of texts; the head learns it with the mean taken off and the deviation divided out."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cypher.config import RegressConfig
from cypher.data.batch import Batch
from cypher.errors import DataError
from cypher.layers.token_sum import Losses, TokenSum
from cypher.models.headed import HeadedModel
from cypher.models.model import Encoded, Head, Model
from cypher.tasks.correlation import pearson, spearman
from cypher.tasks.pooling import PooledHead, by_input_row, pooling_of
from cypher.tasks.table_rows import Fields, TableRows, text_of
from cypher.tasks.text_sequence import TextReader, TextSequence
from cypher.train.task import Task


@dataclass(frozen=True, kw_only=True)
class RegressRow:
    """A text with its number.

    Args:
        text: What is read.
        pair: A second text that is read with it.
        value: ``None`` where nobody knows.
    """

    text: str
    pair: str | None = None
    value: float | None = None


@dataclass(frozen=True, kw_only=True)
class RegressExample:
    """A row as token ids, and its scaled value."""

    sequence: TextSequence
    value: float


class Regress(Task[RegressRow, RegressExample, float]):
    """The task: sequences, head, loss, prediction and score.

    Args:
        config: With mean and deviation of the training values.
        reader: Texts to sequences.
    """

    kind = "regress"

    def __init__(self, config: RegressConfig, *, reader: TextReader) -> None:
        assert config.mean is not None and config.deviation is not None, "settled by the rows"  # noqa: PT018
        self.config = config
        self.mean, self.deviation = config.mean, config.deviation
        self.metric: str = config.metric
        self.reader = reader

    def head(self, model: Model) -> PooledHead:
        """A fresh head.

        Raises:
            ConfigError: It should read what the model cannot give.
        """
        return PooledHead(model.width, 1, pooling_of(self.config.pooling, model))

    def encode(self, row: RegressRow, *, index: int) -> list[RegressExample]:
        """One example a row."""
        value = 0.0 if row.value is None else (row.value - self.mean) / self.deviation
        return [RegressExample(sequence=self.reader.read(row.text, row.pair, row=index), value=value)]

    def length(self, example: RegressExample) -> int:
        """Tokens of the sequence."""
        return len(example.sequence.token_ids)

    def collate(self, examples: Sequence[RegressExample]) -> Batch:
        """Targets: ``value (batch,)`` fp32, scaled."""
        inputs = self.reader.inputs([example.sequence for example in examples])
        values = torch.tensor([example.value for example in examples], dtype=torch.float32)
        return Batch(inputs=inputs, targets={"value": values}, rows=tuple(one.sequence.row for one in examples))

    def counts(self, batch: Batch) -> Mapping[str, int]:
        """One term a row."""
        return {"value": len(batch.rows)}

    def losses(self, head: Head, encoded: Encoded, batch: Batch) -> Losses:
        """Squared error of scaled values."""
        found = self._values(head, encoded, batch)
        total = (found - batch.targets["value"]).square().sum()
        return {"value": TokenSum(total=total, count=len(batch.rows)), **encoded.losses}

    def _values(self, head: Head, encoded: Encoded, batch: Batch) -> Tensor:
        return by_input_row(head(encoded).float(), encoded.row_of, len(batch.rows)).squeeze(1)

    def predict(self, model: HeadedModel, rows: Sequence[RegressRow]) -> list[float]:
        """The value of each row, on the scale of the data."""
        examples = [example for index, row in enumerate(rows) for example in self.encode(row, index=index)]
        values = np.zeros(len(rows))

        def look(chosen: list[int], batch: Batch) -> None:
            values[chosen] = self._values(model.head, model.model(batch.inputs), batch).numpy()

        self.in_batches(examples, look)
        predictions: list[float] = (values * self.deviation + self.mean).tolist()
        return predictions

    def score(self, rows: Sequence[RegressRow], predictions: Sequence[float]) -> dict[str, float]:
        """``pearson`` and ``spearman`` times 100; ``mse`` on the scale of the data."""
        golds = np.array([row.value for row in rows], dtype=np.float64)
        found = np.array(predictions, dtype=np.float64)
        return {
            "pearson": 100 * pearson(golds, found),
            "spearman": 100 * spearman(golds, found),
            "mse": float(np.square(golds - found).mean()),
        }

    def calibrate(self, rows: Sequence[RegressRow], predictions: Sequence[float]) -> dict[str, Any]:
        """Nothing to remember: the scale is in the configuration."""
        return {}


def answer(task: Regress, prediction: float, calibration: Mapping[str, Any], row: RegressRow) -> dict[str, Any]:
    """The value; a number has no probability."""
    return {"prediction": prediction}


def _make(config: RegressConfig, values: Mapping[str, Any], place: str) -> RegressRow:
    pair = text_of(values["pair"], "pair", place) if "pair" in values else None
    value = _number(values["value"], place) if "value" in values else None
    return RegressRow(text=text_of(values["text"], "text", place), pair=pair, value=value)


def _number(value: Any, place: str) -> float:
    try:
        number = float("nan") if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        number = float("nan")
    if not math.isfinite(number):
        raise DataError(f"{place}: value is {value!r}", needed="a number")
    return number


def _settle(config: RegressConfig, rows: Sequence[RegressRow], others: Sequence[RegressRow]) -> RegressConfig:
    """With mean and deviation of the values to learn from."""
    if config.mean is not None or not rows:
        return config
    values = np.array([row.value for row in rows], dtype=np.float64)
    if not values.std():
        raise DataError(f"all {len(rows)} rows have the value {values[0]:g}", needed="values that differ")
    scale = {"mean": float(values.mean()), "deviation": float(values.std())}
    return RegressConfig.model_validate({**config.model_dump(), **scale})


def _check(config: RegressConfig, row: RegressRow) -> None:
    """Every number fits."""


ROWS = TableRows(
    fields=Fields(inputs=("text",), optional=("pair",), targets=("value",)),
    make=_make,
    settle=_settle,
    check=_check,
)
