"""Labels for a text or a pair of texts: one of several, or any number of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cypher.config import ClassifyConfig
from cypher.data.batch import Batch
from cypher.layers.token_sum import Losses, TokenSum
from cypher.models.headed import HeadedModel
from cypher.models.model import Encoded, Head, Model
from cypher.tasks.label_calibration import best_thresholds, fit_temperature, probabilities_of
from cypher.tasks.label_loss import class_weights, log_shares, multi_label_loss, single_label_loss
from cypher.tasks.label_metrics import multi_label_scores, single_label_scores
from cypher.tasks.pooling import PooledHead, by_input_row, pooling_of
from cypher.tasks.text_sequence import TextReader, TextSequence
from cypher.train.task import Task


@dataclass(frozen=True, kw_only=True)
class ClassifyRow:
    """A text with its labels.

    Args:
        text: What is read.
        pair: A second text that is read with it.
        labels: One, or any number with ``multi_label``; ``None`` where nobody knows.
        place: Where it comes from, for errors.
    """

    text: str
    pair: str | None = None
    labels: tuple[str, ...] | None = None
    place: str = "a row"


@dataclass(frozen=True, kw_only=True)
class ClassifyExample:
    """A row as token ids, and the numbers of its labels."""

    sequence: TextSequence
    labels: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class LabelPrediction:
    """What a model says of the labels of a row.

    Args:
        labels: The most probable one, or all with a probability above one half.
        probabilities: Of each label of the task, in their order, before calibration.
        logits: Likewise, what they come from.
    """

    labels: tuple[str, ...]
    probabilities: tuple[float, ...]
    logits: tuple[float, ...]


class Classify(Task[ClassifyRow, ClassifyExample, LabelPrediction]):
    """The task: sequences, head, losses, prediction and score.

    Args:
        config: With its labels, and with ``label_counts`` where a loss needs them.
        reader: Texts to sequences.
    """

    kind = "classify"

    def __init__(self, config: ClassifyConfig, *, reader: TextReader) -> None:
        assert config.labels is not None, "settled by the rows, or given"
        self.config = config
        self.labels = config.labels
        self.metric: str = config.metric or ("micro_f1" if config.multi_label else "accuracy")
        self.reader = reader
        self._number = {label: number for number, label in enumerate(config.labels)}
        self._weights: Tensor | None = None
        self._offsets: Tensor | None = None
        if config.label_counts is not None:
            self._weights = class_weights(config, config.label_counts, sum(config.label_counts))
            if config.logit_adjustment:
                self._offsets = config.logit_adjustment * log_shares(config.label_counts)
        elif isinstance(config.class_weights, tuple):
            self._weights = class_weights(config, (), 0)

    def head(self, model: Model) -> PooledHead:
        """A fresh head.

        Raises:
            ConfigError: It should read what the model cannot give.
        """
        return PooledHead(model.width, len(self.labels), pooling_of(self.config.pooling, model))

    def encode(self, row: ClassifyRow, *, index: int) -> list[ClassifyExample]:
        """One example a row."""
        numbers = () if row.labels is None else tuple(self._number[label] for label in row.labels)
        return [ClassifyExample(sequence=self.reader.read(row.text, row.pair, row=index), labels=numbers)]

    def length(self, example: ClassifyExample) -> int:
        """Tokens of the sequence."""
        return len(example.sequence.token_ids)

    def collate(self, examples: Sequence[ClassifyExample]) -> Batch:
        """Targets: ``labels (batch, labels)`` fp32, 1 where a row has the label."""
        labels = torch.zeros(len(examples), len(self.labels))
        for place, example in enumerate(examples):
            labels[place, list(example.labels)] = 1
        inputs = self.reader.inputs([example.sequence for example in examples])
        return Batch(inputs=inputs, targets={"labels": labels}, rows=tuple(one.sequence.row for one in examples))

    def counts(self, batch: Batch) -> Mapping[str, int]:
        """One term a row, or one a label of every row."""
        return {"label": batch.targets["labels"].numel() if self.config.multi_label else len(batch.rows)}

    def losses(self, head: Head, encoded: Encoded, batch: Batch) -> Losses:
        """Cross-entropy as configured; weighted terms are divided by their number and not by their weights.

        So cutting a batch changes nothing, and weights with a mean of 1 over the rows leave the rate what it was.
        """
        logits = self._logits(head, encoded, batch)
        labels, gamma = batch.targets["labels"], self.config.focal_gamma
        if self.config.multi_label:
            total = multi_label_loss(logits, labels, weights=self._weights, gamma=gamma)
        else:
            total = single_label_loss(
                logits, labels.argmax(1), weights=self._weights, gamma=gamma, offsets=self._offsets
            )
        return {"label": TokenSum(total=total, count=self.counts(batch)["label"]), **encoded.losses}

    def _logits(self, head: Head, encoded: Encoded, batch: Batch) -> Tensor:
        return by_input_row(head(encoded).float(), encoded.row_of, len(batch.rows))

    def predict(self, model: HeadedModel, rows: Sequence[ClassifyRow]) -> list[LabelPrediction]:
        """Labels and probabilities of each row, before calibration."""
        examples = [example for index, row in enumerate(rows) for example in self.encode(row, index=index)]
        logits = np.zeros((len(rows), len(self.labels)))

        def look(chosen: list[int], batch: Batch) -> None:
            logits[chosen] = self._logits(model.head, model.model(batch.inputs), batch).numpy()

        self.in_batches(examples, look)
        if not rows:
            return []
        probabilities = probabilities_of(logits, temperature=1.0, multi_label=self.config.multi_label)
        return [
            LabelPrediction(labels=self._chosen(shares, None), probabilities=tuple(shares), logits=tuple(row))
            for shares, row in zip(probabilities.tolist(), logits.tolist(), strict=True)
        ]

    def _chosen(self, probabilities: Sequence[float], thresholds: Sequence[float] | None) -> tuple[str, ...]:
        if not self.config.multi_label:
            return (self.labels[max(range(len(self.labels)), key=probabilities.__getitem__)],)
        thresholds = thresholds or [0.5] * len(self.labels)
        return tuple(
            label
            for label, probability, threshold in zip(self.labels, probabilities, thresholds, strict=True)
            if probability >= threshold
        )

    def score(self, rows: Sequence[ClassifyRow], predictions: Sequence[LabelPrediction]) -> dict[str, float]:
        """Percent; with ``multi_label`` under the thresholds that suit these rows."""
        return self.score_calibrated(rows, predictions, self.calibrate(rows, predictions))

    def score_calibrated(
        self, rows: Sequence[ClassifyRow], predictions: Sequence[LabelPrediction], calibration: Mapping[str, Any]
    ) -> dict[str, float]:
        """Percent: ``accuracy, macro_f1, micro_f1`` and, of single labels, ``mcc``, under a given calibration."""
        golds = [row.labels or () for row in rows]
        found = [self.calibrated(prediction, calibration)[0] for prediction in predictions]
        if self.config.multi_label:
            return multi_label_scores(golds, found, labels=self.labels)
        return single_label_scores([gold[0] for gold in golds], [one[0] for one in found])

    def calibrate(self, rows: Sequence[ClassifyRow], predictions: Sequence[LabelPrediction]) -> dict[str, Any]:
        """The temperature, and with ``multi_label`` a threshold for each label."""
        multi_label = self.config.multi_label
        logits = np.array([prediction.logits for prediction in predictions])
        labels: NDArray[Any] = np.zeros(logits.shape)
        for place, row in enumerate(rows):
            labels[place, [self._number[label] for label in row.labels or ()]] = 1
        if not np.isfinite(logits).all():
            return {"temperature": 1.0}
        temperature = fit_temperature(logits, labels, multi_label=multi_label)
        if not multi_label:
            return {"temperature": temperature}
        probabilities = probabilities_of(logits, temperature=temperature, multi_label=True)
        average: Literal["macro", "micro"] = "macro" if self.metric == "macro_f1" else "micro"
        return {"temperature": temperature, "thresholds": best_thresholds(probabilities, labels, average=average)}

    def calibrated(
        self, prediction: LabelPrediction, calibration: Mapping[str, Any]
    ) -> tuple[tuple[str, ...], tuple[float, ...]]:
        """Labels and the probability of every label, under a calibration."""
        probabilities = probabilities_of(
            np.array(prediction.logits),
            temperature=calibration.get("temperature", 1.0),
            multi_label=self.config.multi_label,
        ).tolist()
        return self._chosen(probabilities, calibration.get("thresholds")), tuple(probabilities)


def answer(
    task: Classify, prediction: LabelPrediction, calibration: Mapping[str, Any], row: ClassifyRow
) -> dict[str, Any]:
    """The label and its probability; with ``multi_label`` the labels and theirs."""
    labels, probabilities = task.calibrated(prediction, calibration)
    of_label = dict(zip(task.labels, probabilities, strict=True))
    if task.config.multi_label:
        return {"prediction": list(labels), "probability": [of_label[label] for label in labels]}
    return {"prediction": labels[0], "probability": of_label[labels[0]]}
