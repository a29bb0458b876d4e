"""Causal language modelling: the next token of documents, or of the completions of prompts.

A document stands between a token that starts and one that ends it, so every token of the text is predicted, the first
one too. Neighbouring blocks of a long document overlap by one token, so none is predicted twice and none left out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from tokenizers import Tokenizer

from cypher.config.language import CausalLmConfig
from cypher.data.batch import Batch, Inputs, pad_inputs
from cypher.data.texts import TextRow
from cypher.decode.greedy import greedy
from cypher.errors import DataError
from cypher.hub.tokenizer import SpecialTokens
from cypher.layers.token_sum import Losses, TokenSum
from cypher.models.headed import HeadedModel
from cypher.models.model import Encoded, Head, LanguageHead, Model
from cypher.tasks.vocabulary_loss import TokenLosses, vocabulary_losses
from cypher.train.task import Task


@dataclass(frozen=True, kw_only=True)
class CompletionRow:
    """A prompt, which is read, and what should follow it, which is learnt.

    Args:
        prompt: At least the start token stands before it, so it may be empty.
        completion: ``None`` asks for one.
    """

    prompt: str
    completion: str | None = None


CausalRow: TypeAlias = TextRow | CompletionRow


@dataclass(frozen=True, kw_only=True)
class Stretch:
    """Tokens with the one that follows each.

    Args:
        row: Place of its row in the list of rows.
        number: Of the stretch in its row.
        token_ids: What is read.
        following: What is predicted, as long; -1 where nothing is.
    """

    row: int
    number: int
    token_ids: tuple[int, ...]
    following: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class CausalPrediction:
    """What a model made of a row.

    Args:
        loss: Summed over the tokens that were predicted, in nats.
        correct: How many of them were the likeliest.
        count: How many there were.
        bytes: UTF-8 bytes of the text they spell.
        text: How a prompt without a completion goes on.
    """

    loss: float
    correct: int
    count: int
    bytes: int
    text: str | None = None


class CausalLm(Task[CausalRow, Stretch, CausalPrediction]):
    """The task: blocks, loss over the next token, continued prompts and scores.

    Args:
        config: Length of blocks, and of what is written.
        tokenizer: Of the model, without truncation and padding.
        special: ``cls_id`` starts a document, ``sep_id`` ends it; where they are one token, it stands between two.
    """

    kind = "causal_lm"
    metric = "log_likelihood"

    def __init__(self, config: CausalLmConfig, *, tokenizer: Tokenizer, special: SpecialTokens) -> None:
        self.config = config
        self.tokenizer = tokenizer
        self.special = special

    def head(self, model: Model) -> LanguageHead:
        """The model's own."""
        return model.language_head()

    def pack(self, rows: Sequence[TextRow]) -> list[TextRow]:
        """Neighbouring documents put together as long as they fit into one block; longer ones stay alone."""
        if not self.config.pack:
            return list(rows)
        packed: list[TextRow] = []
        held: list[str] = []
        used = 0
        for text in (text for row in rows for text in row.texts):
            length = len(self.tokenizer.encode(text, add_special_tokens=False).ids) + 2
            if held and used + length > self.config.max_length:
                packed.append(TextRow(texts=tuple(held)))
                held, used = [], 0
            held.append(text)
            used += length
        if held:
            packed.append(TextRow(texts=tuple(held)))
        return packed

    def encode(self, row: CausalRow, *, index: int) -> list[Stretch]:
        """Blocks of documents; of a prompt and its completion one, with the end of a long prompt."""
        if isinstance(row, CompletionRow):
            return [self._completion(row, index)]
        token_ids: list[int] = []
        for text in row.texts:
            if not token_ids or self.special.cls_id != self.special.sep_id:
                token_ids.append(self.special.cls_id)
            token_ids += [*self.tokenizer.encode(text, add_special_tokens=False).ids, self.special.sep_id]
        following = [
            # What starts the next document is said by the end of the one before.
            -1 if token_id == self.special.cls_id != self.special.sep_id else token_id
            for token_id in token_ids[1:]
        ]
        size = self.config.max_length
        return [
            Stretch(
                row=index,
                number=number,
                token_ids=tuple(token_ids[start : start + size][: len(following) - start]),
                following=tuple(following[start : start + size]),
            )
            for number, start in enumerate(range(0, len(following), size))
        ]

    def _completion(self, row: CompletionRow, index: int) -> Stretch:
        size = self.config.max_length
        prompt = self.tokenizer.encode(row.prompt, add_special_tokens=False).ids
        completion = self.tokenizer.encode(row.completion or "", add_special_tokens=False).ids
        learnt = [*completion, self.special.sep_id][:size]
        room = size - len(learnt)
        read = [self.special.cls_id, *(prompt[-room:] if room else [])]
        return Stretch(
            row=index,
            number=0,
            token_ids=(*read, *learnt[:-1]),
            following=(*[-1] * (len(read) - 1), *learnt),
        )

    def length(self, example: Stretch) -> int:
        """Tokens of the stretch."""
        return len(example.token_ids)

    def collate(self, examples: Sequence[Stretch]) -> Batch:
        """Targets: ``following (batch, seq)`` int64, -1 where nothing is predicted; ``number (batch,)``."""
        inputs = pad_inputs([stretch.token_ids for stretch in examples], pad_id=self.special.pad_id)
        seq = inputs.token_ids.shape[1]
        following = torch.tensor(
            [[*stretch.following, *[-1] * (seq - len(stretch.following))] for stretch in examples]
        )  # fmt: skip
        number = torch.tensor([stretch.number for stretch in examples])
        rows = tuple(stretch.row for stretch in examples)
        return Batch(inputs=inputs, targets={"following": following, "number": number}, rows=rows)

    def counts(self, batch: Batch) -> Mapping[str, int]:
        """One term a token that is predicted."""
        return {"next": int((batch.targets["following"] >= 0).sum())}

    def losses(self, head: Head, encoded: Encoded, batch: Batch) -> Losses:
        """Cross-entropy of the next tokens."""
        total = self._token_losses(head, encoded, batch).loss.sum()
        return {"next": TokenSum(total=total, count=self.counts(batch)["next"]), **encoded.losses}

    @staticmethod
    def _token_losses(head: Head, encoded: Encoded, batch: Batch) -> TokenLosses:
        assert isinstance(head, LanguageHead), "made by this task"
        following = batch.targets["following"]
        picked = encoded.at(following >= 0)
        return vocabulary_losses(head, picked, following.gather(1, picked.positions))

    def predict(self, model: HeadedModel, rows: Sequence[CausalRow]) -> list[CausalPrediction]:
        """What rows cost; prompts without a completion are continued instead."""
        asked = {
            index: row.prompt
            for index, row in enumerate(rows)
            if isinstance(row, CompletionRow) and row.completion is None
        }
        stretches = [
            stretch for index, row in enumerate(rows) if index not in asked for stretch in self.encode(row, index=index)
        ]
        found: dict[tuple[int, int], tuple[float, float, float]] = {}

        def look(chosen: list[int], batch: Batch) -> None:
            losses = self._token_losses(model.head, model.model(batch.inputs), batch)
            counts = (batch.targets["following"] >= 0).sum(1)
            keys = zip(batch.rows, batch.targets["number"].tolist(), strict=True)
            values = zip(losses.loss.sum(1).tolist(), losses.correct.sum(1).tolist(), counts.tolist(), strict=True)
            found.update(zip(keys, values, strict=True))

        self.in_batches(stretches, look)
        totals = [[0.0, 0.0, 0.0] for _ in rows]
        for row, number in sorted(found):
            totals[row] = [held + more for held, more in zip(totals[row], found[row, number], strict=True)]
        written = dict(zip(asked, self.go_on(model.model, list(asked.values())), strict=True))
        return [
            CausalPrediction(
                loss=loss, correct=int(correct), count=int(count), bytes=_bytes(row), text=written.get(index)
            )
            for index, (row, (loss, correct, count)) in enumerate(zip(rows, totals, strict=True))
        ]

    def go_on(self, model: Model, prompts: Sequence[str]) -> list[str]:
        """How each prompt goes on, greedily, up to the end token."""
        texts: list[str] = []
        for prompt in prompts:
            token_ids = self.tokenizer.encode(prompt, add_special_tokens=False).ids
            ids = torch.tensor([[self.special.cls_id, *token_ids[-self.config.max_length :]]])
            inputs = Inputs(token_ids=ids, attention_mask=torch.ones_like(ids, dtype=torch.bool))
            (written,) = greedy(
                model, inputs, max_new_tokens=self.config.max_new_tokens, stop_ids=[self.special.sep_id]
            )  # fmt: skip
            texts.append(self.tokenizer.decode(written))
        return texts

    def score(self, rows: Sequence[CausalRow], predictions: Sequence[CausalPrediction]) -> dict[str, float]:
        """``loss`` in nats a token, ``perplexity``, ``accuracy`` in percent, ``bits_per_byte`` of the text.

        Tokens that end a document cost bits too, so texts that are cut otherwise compare by bits per byte alone.

        Raises:
            DataError: No row has a text to predict.
        """
        count = sum(found.count for found in predictions)
        size = sum(found.bytes for found in predictions)
        if not count or not size:
            raise DataError(f"{len(rows)} rows without a text to predict", needed="held-out text or completions")
        total = sum(found.loss for found in predictions)
        return {
            "loss": total / count,
            "perplexity": math.exp(min(total / count, 700.0)),
            "bits_per_byte": total / math.log(2) / size,
            "accuracy": 100 * sum(found.correct for found in predictions) / count,
            "log_likelihood": -total / count,
        }

    def calibrate(self, rows: Sequence[CausalRow], predictions: Sequence[CausalPrediction]) -> dict[str, Any]:
        """Nothing: probabilities are the model's own."""
        return {}


def _bytes(row: CausalRow) -> int:
    """Of the text that is predicted."""
    if isinstance(row, CompletionRow):
        return len((row.completion or "").encode())
    return sum(len(text.encode()) for text in row.texts)
