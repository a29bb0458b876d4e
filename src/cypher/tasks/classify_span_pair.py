"""One label for two marked spans: does a word mean the same twice, does a pronoun mean that name.

The head reads the mean state of each span, one vector of the whole row, and how the spans compare: their absolute
difference and their product, number by number (the matching of Mou et al. 2016, arXiv 1512.08422). A linear layer on
the two means alone could not tell whether they are alike.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cypher.config import ClassifySpanPairConfig
from cypher.config.classify import Pooling
from cypher.data.batch import Batch
from cypher.layers.linear import Linear
from cypher.layers.token_sum import Losses, TokenSum
from cypher.models.headed import HeadedModel
from cypher.models.model import Encoded, Head, Model
from cypher.tasks.label_calibration import fit_temperature, probabilities_of
from cypher.tasks.label_metrics import single_label_scores
from cypher.tasks.pooling import by_input_row, pooling_of
from cypher.tasks.span_places import SpanPlaces, find_spans
from cypher.tasks.text_sequence import TextReader
from cypher.train.task import Task


@dataclass(frozen=True, kw_only=True)
class SpanPairRow:
    """Two spans and where they stand.

    Args:
        text: With the first span, and the second one if there is no ``pair``.
        first: Its ``(start, end)`` characters.
        second: Likewise, of ``pair`` where there is one.
        pair: A second text.
        label: ``None`` where nobody knows.
        place: Where the row comes from, for errors.
    """

    text: str
    first: tuple[int, int]
    second: tuple[int, int]
    pair: str | None = None
    label: str | None = None
    place: str = "a row"


@dataclass(frozen=True, kw_only=True)
class SpanPairExample:
    """A row as token ids with the tokens of its spans, and the number of its label."""

    places: SpanPlaces
    label: int


@dataclass(frozen=True, kw_only=True)
class SpanPairPrediction:
    """What a model says of the labels of a row.

    Args:
        label: The most probable one.
        logits: Of every label of the task, in their order.
    """

    label: str
    logits: tuple[float, ...]


class SpanPairHead(Head):
    """A linear layer on two spans, their row and their comparison; see the module.

    Args:
        width: Of the hidden states.
        n_labels: Labels.
        pooling: What of the row is read beside the spans.
    """

    def __init__(self, width: int, n_labels: int, pooling: Pooling) -> None:
        super().__init__()
        self.pooling: Pooling = pooling
        self.scores = Linear(5 * width, n_labels)
        torch.nn.init.normal_(self.scores.weight, std=0.02)
        torch.nn.init.zeros_(self.scores.bias)

    def forward(self, encoded: Encoded) -> Tensor:
        """``(rows, seq, width)``, the states in the order of the tokens; which are spans is only known to the task."""
        return encoded.scatter()

    def joined(self, states: Tensor, encoded: Encoded, spans: Tensor) -> Tensor:
        """The logits of each row.

        Args:
            states: What :meth:`forward` gave.
            encoded: What it was given.
            spans: ``(rows, 2, seq)`` bool, the tokens of each span.

        Returns:
            ``(rows, labels)`` fp32.
        """
        live = live_tokens(encoded)
        parts = torch.cat([_read(live, self.pooling).unsqueeze(1), spans & live.unsqueeze(1)], 1).float()
        shares = parts / parts.sum(2, keepdim=True).clamp(min=1)
        row, first, second = (shares @ states.float()).unbind(1)
        logits: Tensor = self.scores(torch.cat([row, first, second, (first - second).abs(), first * second], -1))
        return logits


def live_tokens(encoded: Encoded) -> Tensor:
    """``(rows, seq)`` bool: real tokens of the input that were not removed on the way."""
    place = encoded.positions.where(encoded.mask & (encoded.positions >= 0), encoded.seq)
    spread = torch.zeros(len(place), encoded.seq + 1, dtype=torch.bool, device=place.device)
    return spread.scatter(1, place, True)[:, : encoded.seq]


def _read(live: Tensor, pooling: Pooling) -> Tensor:
    """The tokens of ``live`` that are read: all, the first or the last."""
    if pooling == "mean":
        return live
    number = torch.arange(1, live.shape[1] + 1, device=live.device)
    order = number if pooling == "last" else -number
    best = order.expand_as(live).masked_fill(~live, -live.shape[1] - 1).argmax(1, keepdim=True)
    return torch.zeros_like(live).scatter(1, best, True) & live


class ClassifySpanPair(Task[SpanPairRow, SpanPairExample, SpanPairPrediction]):
    """The task: sequences with marked spans, head, loss, prediction and score.

    Args:
        config: With its labels.
        reader: Texts to sequences.
    """

    kind = "classify_span_pair"

    def __init__(self, config: ClassifySpanPairConfig, *, reader: TextReader) -> None:
        assert config.labels is not None, "settled by the rows, or given"
        self.config = config
        self.labels = config.labels
        self.metric: str = config.metric
        self.reader = reader
        self._number = {label: number for number, label in enumerate(config.labels)}

    def head(self, model: Model) -> SpanPairHead:
        """A fresh head.

        Raises:
            ConfigError: It should read what the model cannot give.
        """
        return SpanPairHead(model.width, len(self.labels), pooling_of(self.config.pooling, model))

    def encode(self, row: SpanPairRow, *, index: int) -> list[SpanPairExample]:
        """One example a row.

        Raises:
            DataError: A span has no token, or is longer than the room there is for it.
        """
        places = find_spans(self.reader, row.text, row.pair, row.first, row.second, row=index, place=row.place)
        label = -1 if row.label is None else self._number[row.label]
        return [SpanPairExample(places=places, label=label)]

    def length(self, example: SpanPairExample) -> int:
        """Tokens of the sequence."""
        return len(example.places.sequence.token_ids)

    def collate(self, examples: Sequence[SpanPairExample]) -> Batch:
        """Targets: ``label (batch,)`` int64; ``spans (batch, 2, seq)`` bool, the tokens of each span."""
        inputs = self.reader.inputs([example.places.sequence for example in examples])
        spans = torch.zeros(len(examples), 2, inputs.token_ids.shape[1], dtype=torch.bool)
        for number, example in enumerate(examples):
            for side, (first, end) in enumerate((example.places.first, example.places.second)):
                spans[number, side, first:end] = True
        labels = torch.tensor([example.label for example in examples])
        return Batch(
            inputs=inputs,
            targets={"label": labels, "spans": spans},
            rows=tuple(example.places.sequence.row for example in examples),
        )

    def counts(self, batch: Batch) -> Mapping[str, int]:
        """One term a row."""
        return {"label": len(batch.rows)}

    def losses(self, head: Head, encoded: Encoded, batch: Batch) -> Losses:
        """Cross-entropy."""
        logits = self._logits(head, encoded, batch)
        total = torch.nn.functional.cross_entropy(logits, batch.targets["label"], reduction="sum")
        return {"label": TokenSum(total=total, count=len(batch.rows)), **encoded.losses}

    def _logits(self, head: Head, encoded: Encoded, batch: Batch) -> Tensor:
        assert isinstance(head, SpanPairHead), "made by this task"
        logits = head.joined(head(encoded), encoded, batch.targets["spans"][encoded.row_of])
        return by_input_row(logits, encoded.row_of, len(batch.rows))

    def predict(self, model: HeadedModel, rows: Sequence[SpanPairRow]) -> list[SpanPairPrediction]:
        """The most probable label of each row."""
        examples = [example for index, row in enumerate(rows) for example in self.encode(row, index=index)]
        logits = np.zeros((len(rows), len(self.labels)))

        def look(chosen: list[int], batch: Batch) -> None:
            logits[chosen] = self._logits(model.head, model.model(batch.inputs), batch).numpy()

        self.in_batches(examples, look)
        return [
            SpanPairPrediction(label=self.labels[int(best)], logits=tuple(scores))
            for best, scores in zip(logits.argmax(1), logits.tolist(), strict=True)
        ]

    def score(self, rows: Sequence[SpanPairRow], predictions: Sequence[SpanPairPrediction]) -> dict[str, float]:
        """Percent: ``accuracy, macro_f1, micro_f1, mcc``."""
        return single_label_scores([str(row.label) for row in rows], [found.label for found in predictions])

    def calibrate(self, rows: Sequence[SpanPairRow], predictions: Sequence[SpanPairPrediction]) -> dict[str, Any]:
        """The temperature under which the right labels are most likely."""
        logits = np.array([found.logits for found in predictions])
        if not np.isfinite(logits).all():
            return {"temperature": 1.0}
        labels = np.array([[float(label == row.label) for label in self.labels] for row in rows])
        return {"temperature": fit_temperature(logits, labels, multi_label=False)}


def answer(
    task: ClassifySpanPair, prediction: SpanPairPrediction, calibration: Mapping[str, Any], row: SpanPairRow
) -> dict[str, Any]:
    """The label and its probability."""
    shares = probabilities_of(
        np.array(prediction.logits), temperature=calibration.get("temperature", 1.0), multi_label=False
    ).tolist()
    return {"prediction": prediction.label, "probability": shares[task.labels.index(prediction.label)]}
