"""Which of several candidates goes with a text: each is read with it, and their scores compete.

A softmax over the candidates of one row (Zellers et al. 2018, arXiv 1808.05326, section 4.2); all of them are in one
batch, so that the row's loss is whole.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cypher.config import ChooseConfig
from cypher.data.batch import Batch
from cypher.layers.token_sum import Losses, TokenSum
from cypher.models.headed import HeadedModel
from cypher.models.model import Encoded, Head, Model
from cypher.tasks.label_calibration import fit_temperature, probabilities_of
from cypher.tasks.pooling import PooledHead, by_input_row, pooling_of
from cypher.tasks.text_sequence import TextReader, TextSequence
from cypher.train.task import Task

# Stands for the score of a candidate that a row has not; no temperature makes its probability more than 0.
_ABSENT = -1e5


@dataclass(frozen=True, kw_only=True)
class ChooseRow:
    """A text with its candidates.

    Args:
        text: What is read with each of them.
        choices: Two or more.
        label: Place of the right one, from 0; ``None`` where nobody knows.
    """

    text: str
    choices: tuple[str, ...]
    label: int | None = None


@dataclass(frozen=True, kw_only=True)
class ChooseExample:
    """A row as one sequence a candidate."""

    sequences: tuple[TextSequence, ...]
    label: int


@dataclass(frozen=True, kw_only=True)
class ChoicePrediction:
    """What a model says of a row's candidates.

    Args:
        choice: Place of the most probable one.
        logits: Of each.
    """

    choice: int
    logits: tuple[float, ...]


class Choose(Task[ChooseRow, ChooseExample, ChoicePrediction]):
    """The task: a sequence a candidate, one score each, loss, prediction and score.

    Args:
        config: Lengths, and what the head reads.
        reader: Texts to sequences.
    """

    kind = "choose"
    metric = "accuracy"

    def __init__(self, config: ChooseConfig, *, reader: TextReader) -> None:
        self.config = config
        self.reader = reader

    def head(self, model: Model) -> PooledHead:
        """A fresh head.

        Raises:
            ConfigError: It should read what the model cannot give.
        """
        return PooledHead(model.width, 1, pooling_of(self.config.pooling, model))

    def encode(self, row: ChooseRow, *, index: int) -> list[ChooseExample]:
        """One example a row: its candidates are never parted."""
        sequences = tuple(self.reader.read(row.text, choice, row=index) for choice in row.choices)
        return [ChooseExample(sequences=sequences, label=-1 if row.label is None else row.label)]

    def length(self, example: ChooseExample) -> int:
        """Tokens of all candidates with the padding between them."""
        return len(example.sequences) * max(len(sequence.token_ids) for sequence in example.sequences)

    def collate(self, examples: Sequence[ChooseExample]) -> Batch:
        """A batch row a candidate. Targets, by question: ``label (questions,)``; ``choices (questions, most)`` int64,
        the batch row of each candidate, -1 where there are fewer.
        """
        sequences = [sequence for example in examples for sequence in example.sequences]
        most = max(len(example.sequences) for example in examples)
        choices, first = torch.full((len(examples), most), -1), 0
        for place, example in enumerate(examples):
            n_choices = len(example.sequences)
            choices[place, :n_choices] = torch.arange(first, first + n_choices)
            first += n_choices
        labels = torch.tensor([example.label for example in examples])
        return Batch(
            inputs=self.reader.inputs(sequences),
            targets={"label": labels, "choices": choices},
            rows=tuple(sequence.row for sequence in sequences),
        )

    def counts(self, batch: Batch) -> Mapping[str, int]:
        """One term a question, however many candidates it has."""
        return {"choice": len(batch.targets["label"])}

    def losses(self, head: Head, encoded: Encoded, batch: Batch) -> Losses:
        """Negative log-likelihood of the right candidate among those of its row."""
        logits = self._logits(head, encoded, batch)
        total = torch.nn.functional.cross_entropy(logits, batch.targets["label"], reduction="sum")
        return {"choice": TokenSum(total=total, count=len(logits)), **encoded.losses}

    def _logits(self, head: Head, encoded: Encoded, batch: Batch) -> Tensor:
        """``(questions, most)`` fp32."""
        scores = by_input_row(head(encoded).float(), encoded.row_of, len(batch.rows)).squeeze(1)
        choices = batch.targets["choices"]
        return scores[choices.clamp(min=0)].masked_fill(choices < 0, _ABSENT)

    def predict(self, model: HeadedModel, rows: Sequence[ChooseRow]) -> list[ChoicePrediction]:
        """The most probable candidate of each row."""
        examples = [example for index, row in enumerate(rows) for example in self.encode(row, index=index)]
        found: dict[int, ChoicePrediction] = {}

        def look(chosen: list[int], batch: Batch) -> None:
            logits = self._logits(model.head, model.model(batch.inputs), batch)
            for place, scores in zip(chosen, logits.tolist(), strict=True):
                own = tuple(scores[: len(rows[place].choices)])
                found[place] = ChoicePrediction(choice=max(range(len(own)), key=own.__getitem__), logits=own)

        self.in_batches(examples, look)
        return [found[place] for place in range(len(rows))]

    def score(self, rows: Sequence[ChooseRow], predictions: Sequence[ChoicePrediction]) -> dict[str, float]:
        """``accuracy`` in percent."""
        right = sum(row.label == found.choice for row, found in zip(rows, predictions, strict=True))
        return {"accuracy": 100 * right / len(rows)}

    def calibrate(self, rows: Sequence[ChooseRow], predictions: Sequence[ChoicePrediction]) -> dict[str, Any]:
        """The temperature under which the right candidates are most likely."""
        most = max(len(found.logits) for found in predictions)
        logits = np.array([[*found.logits, *[_ABSENT] * (most - len(found.logits))] for found in predictions])
        labels = np.array([[float(place == row.label) for place in range(most)] for row in rows])
        if not np.isfinite(logits).all():
            return {"temperature": 1.0}
        return {"temperature": fit_temperature(logits, labels, multi_label=False)}


def answer(
    task: Choose, prediction: ChoicePrediction, calibration: Mapping[str, Any], row: ChooseRow
) -> dict[str, Any]:
    """The candidate, its place, and the probability of each."""
    shares = probabilities_of(
        np.array(prediction.logits), temperature=calibration.get("temperature", 1.0), multi_label=False
    ).tolist()
    place = prediction.choice
    return {
        "prediction": row.choices[place],
        "choice": place,
        "probability": shares[place],
        "probabilities": shares,
    }
