"""A tag for every word: the first token of a word stands for it (Devlin et al. 2019, arXiv 1810.04805, section 5.3)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from torch import Tensor

from cypher.config import TagConfig
from cypher.data.batch import Batch, pad_inputs
from cypher.hub.tokenizer import SpecialTokens
from cypher.layers.linear import Linear
from cypher.layers.token_sum import Losses, TokenSum
from cypher.models.headed import HeadedModel
from cypher.models.model import Encoded, Head, Model
from cypher.tasks.entities import entities, entity_scores
from cypher.tasks.pooling import by_input_row
from cypher.train.task import Task

# Of tokens that no tag is due for.
NO_TAG = -100


@dataclass(frozen=True, kw_only=True)
class TagRow:
    """Words with their tags.

    Args:
        words: At least one.
        tags: As many; ``None`` where nobody knows.
        place: Where the row comes from, for errors.
    """

    words: tuple[str, ...]
    tags: tuple[str, ...] | None = None
    place: str = "a row"


@dataclass(frozen=True, kw_only=True)
class TagExample:
    """Some words of a row as token ids.

    Args:
        row: Place of the row in the list of rows.
        token_ids: Special tokens included.
        words: Which word of the row, and at which token it begins.
        tags: Numbers of their tags; 0 where nobody knows.
    """

    row: int
    token_ids: tuple[int, ...]
    words: tuple[tuple[int, int], ...]
    tags: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class TagPrediction:
    """Of each word of a row its most probable tag, and the probability of that."""

    tags: tuple[str, ...]
    probabilities: tuple[float, ...]


class TagHead(Head):
    """Logits of the tags for every token.

    Args:
        width: Of the hidden states.
        n_tags: How many there are.
    """

    def __init__(self, width: int, n_tags: int) -> None:
        super().__init__()
        self.scores = Linear(width, n_tags)
        torch.nn.init.normal_(self.scores.weight, std=0.02)
        torch.nn.init.zeros_(self.scores.bias)

    def forward(self, encoded: Encoded) -> Tensor:
        """``(rows, seq, tags)`` fp32."""
        logits: Tensor = self.scores(encoded.scatter().float())
        return logits


class Tag(Task[TagRow, TagExample, TagPrediction]):
    """The task: parts of rows, head, loss, prediction and score.

    Args:
        config: With its tags.
        tokenizer: Of the model, without truncation and padding.
        special: The ids it puts around texts.
    """

    kind = "tag"

    def __init__(self, config: TagConfig, *, tokenizer: Tokenizer, special: SpecialTokens) -> None:
        assert config.tags is not None, "settled by the rows, or given"
        self.config = config
        self.tags = config.tags
        self.metric = "f1" if config.scheme == "bio" else "accuracy"
        self.tokenizer, self.special = tokenizer, special
        self._number = {tag: number for number, tag in enumerate(config.tags)}

    def head(self, model: Model) -> TagHead:
        """A fresh head."""
        return TagHead(model.width, len(self.tags))

    def encode(self, row: TagRow, *, index: int) -> list[TagExample]:
        """Parts of one row, cut between words; a word alone that is too long is cut to its first tokens.

        A word of which the tokenizer makes nothing stands as its unknown token where it has one, else as padding.
        """
        encoding = self.tokenizer.encode(list(row.words), is_pretokenized=True, add_special_tokens=False)
        pieces: list[list[int]] = [[] for _ in row.words]
        for token_id, word in zip(encoding.ids, encoding.word_ids, strict=True):
            assert word is not None, "no special tokens were asked for"
            pieces[word].append(token_id)
        room = self.config.max_length - 2
        parts: list[list[int]] = [[]]
        used = 0
        for word, ids in enumerate(pieces):
            pieces[word] = ids[:room] or [self.special.pad_id if self._unknown is None else self._unknown]
            if used + len(pieces[word]) > room:
                parts.append([])
                used = 0
            parts[-1].append(word)
            used += len(pieces[word])
        return [self._example(row, index, part, pieces) for part in parts]

    @property
    def _unknown(self) -> int | None:
        return next((i for i in map(self.tokenizer.token_to_id, ("[UNK]", "<unk>")) if i is not None), None)

    def _example(self, row: TagRow, index: int, part: Sequence[int], pieces: Sequence[Sequence[int]]) -> TagExample:
        token_ids, words = [self.special.cls_id], []
        for word in part:
            words.append((word, len(token_ids)))
            token_ids += pieces[word]
        tags = tuple(0 if row.tags is None else self._number[row.tags[word]] for word in part)
        return TagExample(row=index, token_ids=(*token_ids, self.special.sep_id), words=tuple(words), tags=tags)

    def length(self, example: TagExample) -> int:
        """Tokens of the part."""
        return len(example.token_ids)

    def collate(self, examples: Sequence[TagExample]) -> Batch:
        """Targets: ``tags (batch, seq)`` int64, at the first token of each word; elsewhere ``NO_TAG``."""
        inputs = pad_inputs([example.token_ids for example in examples], pad_id=self.special.pad_id)
        tags = torch.full(inputs.token_ids.shape, NO_TAG)
        for place, example in enumerate(examples):
            tags[place, [start for _, start in example.words]] = torch.tensor(example.tags)
        return Batch(inputs=inputs, targets={"tags": tags}, rows=tuple(example.row for example in examples))

    def counts(self, batch: Batch) -> Mapping[str, int]:
        """One term a word."""
        return {"tag": int((batch.targets["tags"] != NO_TAG).sum())}

    def losses(self, head: Head, encoded: Encoded, batch: Batch) -> Losses:
        """Cross-entropy of the tags."""
        logits = self._logits(head, encoded, batch)
        tags = batch.targets["tags"]
        total = F.cross_entropy(logits.flatten(0, 1), tags.flatten(), ignore_index=NO_TAG, reduction="sum")
        return {"tag": TokenSum(total=total, count=self.counts(batch)["tag"]), **encoded.losses}

    def _logits(self, head: Head, encoded: Encoded, batch: Batch) -> Tensor:
        return by_input_row(head(encoded).float(), encoded.row_of, len(batch.rows))

    def predict(self, model: HeadedModel, rows: Sequence[TagRow]) -> list[TagPrediction]:
        """Tags of each row's words."""
        examples = [example for index, row in enumerate(rows) for example in self.encode(row, index=index)]
        tags = [[""] * len(row.words) for row in rows]
        probabilities = [[0.0] * len(row.words) for row in rows]

        def look(chosen: list[int], batch: Batch) -> None:
            best = self._logits(model.head, model.model(batch.inputs), batch).softmax(-1).max(-1)
            for number, place in enumerate(chosen):
                example = examples[place]
                starts = [start for _, start in example.words]
                found = zip(best.indices[number, starts].tolist(), best.values[number, starts].tolist(), strict=True)
                for (word, _), (tag, probability) in zip(example.words, found, strict=True):
                    tags[example.row][word] = self.tags[tag]
                    probabilities[example.row][word] = probability

        self.in_batches(examples, look)
        return [
            TagPrediction(tags=tuple(of_row), probabilities=tuple(shares))
            for of_row, shares in zip(tags, probabilities, strict=True)
        ]

    def score(self, rows: Sequence[TagRow], predictions: Sequence[TagPrediction]) -> dict[str, float]:
        """Percent: ``accuracy`` of words; with BIO tags ``f1, precision, recall`` of whole entities."""
        golds = [row.tags or () for row in rows]
        found = [prediction.tags for prediction in predictions]
        pairs = [pair for gold, one in zip(golds, found, strict=True) for pair in zip(gold, one, strict=True)]
        accuracy = {"accuracy": 100 * sum(gold == guess for gold, guess in pairs) / len(pairs)}
        return {**entity_scores(golds, found), **accuracy} if self.config.scheme == "bio" else accuracy

    def calibrate(self, rows: Sequence[TagRow], predictions: Sequence[TagPrediction]) -> dict[str, Any]:
        """Nothing to remember: the most probable tag is taken."""
        return {}


def answer(task: Tag, prediction: TagPrediction, calibration: Mapping[str, Any], row: TagRow) -> dict[str, Any]:
    """A tag and its probability for each word; with BIO tags the entities too, by their words."""
    found: dict[str, Any] = {"prediction": list(prediction.tags), "probability": list(prediction.probabilities)}
    if task.config.scheme == "bio":
        found["entities"] = [
            {"type": entity.type, "start": entity.start, "end": entity.end} for entity in entities(prediction.tags)
        ]
    return found
