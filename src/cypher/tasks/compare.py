"""One label for two stretches of text that are read together: two texts, or two words in one or two texts.

The mean hidden states ``a`` and ``b`` of the stretches' tokens are compared as ``[a, b, a · b, |a - b|]`` (Conneau et
al. 2017, arXiv 1705.02364, section 3.1), with the first token's state beside them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from torch import Tensor, nn

from cypher.config.compare import CompareConfig
from cypher.data.batch import Batch, batches_for_inference, pad_inputs
from cypher.data.batch_workers import each_batch
from cypher.errors import DataError
from cypher.hub.tokenizer import SpecialTokens
from cypher.layers.linear import Linear
from cypher.layers.token_sum import Losses, TokenSum
from cypher.models.model import Encoded, Head, Model
from cypher.train.task import HeadedModel

# Tokens of one inference batch, padding included.
BATCH_TOKENS = 1024


@dataclass(frozen=True, kw_only=True)
class CompareRow:
    """Two stretches and what they are to each other.

    Args:
        first: A text.
        second: Another, read after it; ``None`` where both stretches are in the first.
        spans: ``(start, end)`` characters of the two stretches, each in its text; ``None`` is the whole texts.
        label: One of the task's; ``None`` where nobody knows.
    """

    first: str
    second: str | None = None
    spans: tuple[tuple[int, int], tuple[int, int]] | None = None
    label: str | None = None


@dataclass(frozen=True, kw_only=True)
class CompareExample:
    """A row as token ids.

    Args:
        row: Place of its row in the list of rows.
        token_ids: Of the whole sequence.
        second_start: Index of the second text's first token; the length where there is none.
        stretches: ``(first, last)`` token of each stretch.
        label: Number of its label; 0 where it has none.
    """

    row: int
    token_ids: tuple[int, ...]
    second_start: int
    stretches: tuple[tuple[int, int], tuple[int, int]]
    label: int


class CompareHead(Head):
    """Logits of the labels from two stretches and the first token.

    Args:
        width: Of the hidden states.
        n_labels: How many there are.
    """

    def __init__(self, width: int, n_labels: int) -> None:
        super().__init__()
        self.dense = Linear(5 * width, width)
        self.scores = Linear(width, n_labels)
        for layer in (self.dense, self.scores):
            nn.init.normal_(layer.weight, std=0.02)
            nn.init.zeros_(layer.bias)

    def forward(self, encoded: Encoded) -> Tensor:
        """Hidden states in fp32, ``(rows, seq, width)``; :meth:`compare` goes on when the stretches are known."""
        return encoded.scatter().float()

    def compare(self, hidden: Tensor, stretches: Tensor) -> Tensor:
        """Compare.

        Args:
            hidden: ``(rows, seq, width)``.
            stretches: ``(rows, 2, seq)`` bool, which tokens belong to each.

        Returns:
            ``(rows, labels)``.
        """
        share = stretches.float()
        means = (share / share.sum(-1, keepdim=True)) @ hidden
        a, b = means.unbind(1)
        features = torch.cat([hidden[:, 0], a, b, a * b, (a - b).abs()], dim=-1)
        return cast(Tensor, self.scores(torch.tanh(self.dense(features))))


class Compare:
    """The task: sequences, head, loss, prediction and score.

    Args:
        config: Labels and lengths.
        tokenizer: Of the model, without truncation and padding.
        special: The ids it puts around texts.
        segments: Whether the model tells two texts apart by segment ids.
    """

    kind = "compare"

    def __init__(
        self, config: CompareConfig, *, tokenizer: Tokenizer, special: SpecialTokens, segments: bool = True
    ) -> None:
        self.config = config
        self.metric: str = config.metric
        self.tokenizer = tokenizer
        self.special = special
        self.segments = segments

    def head(self, model: Model) -> CompareHead:
        """A fresh head."""
        return CompareHead(model.width, len(self.config.labels))

    def encode(self, row: CompareRow, *, index: int) -> list[CompareExample]:
        """One example a row.

        Raises:
            DataError: A stretch is behind the cut, or the label is unknown.
        """
        first = self.tokenizer.encode(row.first, add_special_tokens=False)
        second = None if row.second is None else self.tokenizer.encode(row.second, add_special_tokens=False)
        room = self.config.max_length - (2 if second is None else 3)
        n_first, n_second = _cut(len(first.ids), 0 if second is None else len(second.ids), room)
        token_ids = [self.special.cls_id, *first.ids[:n_first], self.special.sep_id]
        second_start = len(token_ids)
        if second is not None:
            token_ids += [*second.ids[:n_second], self.special.sep_id]
        if row.spans is None:
            other = (1, max(1, n_first)) if second is None else (second_start, second_start + max(0, n_second - 1))
            stretches = ((1, max(1, n_first)), other)
        else:
            in_second = (first, n_first, 1) if second is None else (second, n_second, second_start)
            places = [
                _tokens_of(encoding.offsets[:kept], span, start)
                for (encoding, kept, start), span in zip(((first, n_first, 1), in_second), row.spans, strict=True)
            ]
            if places[0] is None or places[1] is None:
                raise DataError(
                    f"row {index}: {row.first[:60]!r} has a marked word behind token {self.config.max_length}",
                    change="raise task.max_length",
                )
            stretches = (places[0], places[1])
        if row.label is not None and row.label not in self.config.labels:
            raise DataError(f"row {index}: label {row.label!r}", needed=f"one of {', '.join(self.config.labels)}")
        return [
            CompareExample(
                row=index,
                token_ids=tuple(token_ids),
                second_start=second_start,
                stretches=stretches,
                label=0 if row.label is None else self.config.labels.index(row.label),
            )
        ]

    def length(self, example: CompareExample) -> int:
        """Tokens of the sequence."""
        return len(example.token_ids)

    def collate(self, examples: Sequence[CompareExample]) -> Batch:
        """Targets: ``label (batch,)`` int64 and ``stretches (batch, 2, seq)`` bool."""
        segments = None
        if self.segments:
            segments = [
                [int(place >= example.second_start) for place in range(len(example.token_ids))] for example in examples
            ]
        inputs = pad_inputs(
            [example.token_ids for example in examples], pad_id=self.special.pad_id, segment_ids=segments
        )
        place = torch.arange(inputs.token_ids.shape[1])
        ends = torch.tensor([example.stretches for example in examples])
        targets = {
            "label": torch.tensor([example.label for example in examples]),
            "stretches": (place >= ends[..., :1]) & (place <= ends[..., 1:]),
        }
        return Batch(inputs=inputs, targets=targets, rows=tuple(example.row for example in examples))

    def counts(self, batch: Batch) -> Mapping[str, int]:
        """One term a row."""
        return {"label": len(batch.rows)}

    def step(self, model: HeadedModel, batch: Batch) -> Losses:
        """Cross-entropy of the labels."""
        logits, encoded = self._logits(model, batch)
        total = F.cross_entropy(logits, batch.targets["label"], reduction="sum")
        return {"label": TokenSum(total=total, count=len(batch.rows)), **encoded.losses}

    def _logits(self, model: HeadedModel, batch: Batch) -> tuple[Tensor, Encoded]:
        hidden, encoded = model(batch.inputs)
        return cast(CompareHead, model.head).compare(hidden, batch.targets["stretches"]), encoded

    def predict(self, model: HeadedModel, rows: Sequence[CompareRow]) -> list[tuple[float, ...]]:
        """Of each row the probabilities of the labels, in their order."""
        examples = [example for index, row in enumerate(rows) for example in self.encode(row, index=index)]
        found: list[tuple[float, ...]] = [()] * len(rows)

        def look(chosen: list[int]) -> None:
            logits, _ = self._logits(model, self.collate([examples[place] for place in chosen]))
            for place, probabilities in zip(chosen, logits.float().softmax(-1).tolist(), strict=True):
                found[place] = tuple(probabilities)

        lengths = [self.length(example) for example in examples]
        each_batch(look, batches_for_inference(lengths, batch_tokens=BATCH_TOKENS))
        return found

    def score(self, rows: Sequence[CompareRow], predictions: Sequence[Sequence[float]]) -> dict[str, float]:
        """Percent: ``accuracy``, and ``macro_f1`` over all labels, whether or not they are ever predicted."""
        labels = self.config.labels
        found = [labels[max(range(len(labels)), key=one.__getitem__)] for one in predictions]
        golds = [row.label for row in rows]
        assert None not in golds, "only rows whose labels are known can be scored"
        f1s = []
        for label in labels:
            hits = sum(gold == given == label for gold, given in zip(golds, found, strict=True))
            either = golds.count(label) + found.count(label)
            f1s.append(2 * hits / either if either else 0.0)
        right = sum(gold == given for gold, given in zip(golds, found, strict=True))
        return {"accuracy": 100 * right / len(golds), "macro_f1": 100 * sum(f1s) / len(f1s)}

    def calibrate(self, rows: Sequence[CompareRow], predictions: Sequence[Sequence[float]]) -> dict[str, Any]:
        """Nothing to remember: the most probable label is taken."""
        return {}


def _cut(n_first: int, n_second: int, room: int) -> tuple[int, int]:
    """Tokens kept of two texts: the longer one is cut, until both have half.

    Example:
        >>> _cut(9, 3, 8), _cut(9, 9, 8), _cut(2, 3, 8)
        ((5, 3), (4, 4), (2, 3))
    """
    kept_second = min(n_second, max(room - n_first, room // 2))
    return min(n_first, room - kept_second), kept_second


def _tokens_of(offsets: Sequence[tuple[int, int]], span: tuple[int, int], start: int) -> tuple[int, int] | None:
    """First and last token that overlap the span's characters, counted from ``start``; ``None`` if there is none."""
    inside = [place for place, (first, last) in enumerate(offsets) if first < span[1] and last > span[0]]
    return (inside[0] + start, inside[-1] + start) if inside else None
