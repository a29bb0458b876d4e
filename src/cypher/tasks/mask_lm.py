"""Masked language modelling (Devlin et al. 2019, arXiv 1810.04805, section 3.1 and appendix A.1).

Of the tokens of a block 15 % are predicted: most of them hidden behind the mask token, some replaced at random, some
left as they are. Each step hides others (Liu et al. 2019, arXiv 1907.11692, section 4.1), drawn from seed, step and the
block's place in the data, so that neither a pause nor the size of micro-batches changes what is hidden.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn

from cypher.config.language import MaskLmConfig
from cypher.data.batch import Batch, Inputs, pad_inputs
from cypher.data.texts import TextRow
from cypher.errors import ConfigError, DataError
from cypher.hub.tokenizer import SpecialTokens
from cypher.layers.token_sum import Losses, TokenSum
from cypher.models.bert import Bert, BertLanguageHead, BertPrediction
from cypher.models.headed import HeadedModel
from cypher.models.model import Encoded, Head, LanguageHead, Model
from cypher.tasks.vocabulary_loss import TokenLosses, vocabulary_losses
from cypher.train.task import Task

# Of the tokens that are predicted: behind the mask token, and replaced by any token; the rest stay.
HIDDEN, REPLACED = 0.8, 0.1
# The step of held-out text: its masking never changes.
_HELD_OUT = -1


@dataclass(frozen=True, kw_only=True)
class Block:
    """A stretch of one document, as token ids.

    Args:
        row: Place of its row in the list of rows.
        number: Of the block in its row.
        token_ids: Special tokens at both ends included.
        words: Which word each token is a piece of; -1 for special tokens, which are never predicted.
    """

    row: int
    number: int
    token_ids: tuple[int, ...]
    words: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Fill:
    """A token that a mask may stand for.

    Args:
        token: As the tokenizer writes it.
        score: Its probability.
    """

    token: str
    score: float


@dataclass(frozen=True, kw_only=True)
class MaskPrediction:
    """What a model made of a row.

    Args:
        loss: Summed over the tokens that were hidden, in nats.
        correct: How many of them it found.
        count: How many there were; 0 for a text that has masks of its own.
        fills: For each mask the text has, in order, the likeliest tokens, the best first.
    """

    loss: float
    correct: int
    count: int
    fills: tuple[tuple[Fill, ...], ...] = ()


class FreshPredictionHead(LanguageHead):
    """The head of masked language modelling for a BERT whose weights came without one.

    Args:
        model: Owns the embedding that hidden states are compared with; it is not registered here again.
    """

    def __init__(self, model: Bert) -> None:
        super().__init__(model.vocabulary_size)
        self.prediction = BertPrediction(model.config)
        nn.init.normal_(self.prediction.dense.weight, std=0.02)
        nn.init.zeros_(self.prediction.dense.bias)
        self._tied = (BertLanguageHead(self.prediction, model),)

    def forward(self, encoded: Encoded) -> Tensor:
        """``(rows, seq, vocabulary)``."""
        logits: Tensor = self._tied[0](encoded)
        return logits


class MaskLm(Task[TextRow, Block, MaskPrediction]):
    """The task: blocks, masking, loss over what is hidden, filled masks and scores.

    Args:
        config: Length of blocks and share of tokens.
        tokenizer: Of the model, without truncation and padding.
        special: The ids it puts around texts, and that of the mask.

    Raises:
        ConfigError: The tokenizer has no mask token, or does not know where words end.
    """

    kind = "mask_lm"
    metric = "log_likelihood"

    def __init__(self, config: MaskLmConfig, *, tokenizer: Tokenizer, special: SpecialTokens) -> None:
        if special.mask_id is None:
            raise ConfigError("this tokenizer has no mask token", needed="a model with one, such as a BERT")
        if config.whole_word and tokenizer.pre_tokenizer is None:
            raise ConfigError(
                "whole_word with a tokenizer that takes a text as one piece",
                needed="one that cuts a text into words before it cuts words into pieces",
                change="set task.whole_word = false",
            )
        self.config = config
        self.tokenizer = tokenizer
        self.special = special
        self.mask_id: int = special.mask_id
        self.seed = config.seed or 0
        self._vocabulary_size = tokenizer.get_vocab_size()
        self._never = {token_id for token_id, token in tokenizer.get_added_tokens_decoder().items() if token.special}
        self._never |= {special.cls_id, special.sep_id, special.pad_id, special.mask_id}
        self._replacements = sorted(set(range(self._vocabulary_size)) - self._never)
        self._drawn: tuple[Batch, tuple[Tensor, Tensor]] | None = None

    def head(self, model: Model) -> LanguageHead:
        """The model's own head, or a fresh one where its weights came without."""
        if isinstance(model, Bert) and model.prediction is None:
            return FreshPredictionHead(model)
        return model.language_head()

    def encode(self, row: TextRow, *, index: int) -> list[Block]:
        """Blocks of one row; none has tokens of two documents."""
        blocks: list[Block] = []
        room = self.config.max_length - 2
        for text in row.texts:
            encoding = self.tokenizer.encode(text, add_special_tokens=False)
            words = encoding.word_ids if self.config.whole_word else list(range(len(encoding.ids)))
            # A token that the text spells out, such as a mask of its own, is no word to be hidden.
            words = [-1 if token_id in self._never or word is None else word
                     for token_id, word in zip(encoding.ids, words, strict=True)]  # fmt: skip
            blocks += [
                Block(
                    row=index,
                    number=len(blocks) + number,
                    token_ids=(self.special.cls_id, *encoding.ids[start : start + room], self.special.sep_id),
                    words=(-1, *words[start : start + room], -1),
                )
                for number, start in enumerate(range(0, len(encoding.ids), room))
            ]
        return [block for block in blocks if any(word >= 0 for word in block.words) or self.mask_id in block.token_ids]

    def length(self, example: Block) -> int:
        """Tokens of the block."""
        return len(example.token_ids)

    def collate(self, examples: Sequence[Block]) -> Batch:
        """Targets: ``words (batch, seq)`` int64, -1 for what is never hidden; ``number (batch,)`` of each block."""
        inputs = pad_inputs([block.token_ids for block in examples], pad_id=self.special.pad_id)
        seq = inputs.token_ids.shape[1]
        words = torch.tensor([[*block.words, *[-1] * (seq - len(block.words))] for block in examples])
        number = torch.tensor([block.number for block in examples])
        return Batch(
            inputs=inputs, targets={"words": words, "number": number}, rows=tuple(block.row for block in examples)
        )

    def masked(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """What the model reads, ``(batch, seq)`` int64, and which tokens it predicts, ``(batch, seq)`` bool.

        Drawn from the seed, the batch's step and the place of each block in the data, and from nothing else.
        """
        held = self._drawn
        if held is None or held[0] is not batch:
            # A step asks several times of one batch; other threads, which have others, only make it draw again.
            held = self._drawn = (batch, self._draw(batch))
        return held[1]

    def _draw(self, batch: Batch) -> tuple[Tensor, Tensor]:
        token_ids = batch.inputs.token_ids.clone()
        chosen = torch.zeros_like(batch.inputs.attention_mask)
        places = zip(batch.rows, batch.targets["number"].tolist(), batch.targets["words"].tolist(), strict=True)
        for place, (row, number, words) in enumerate(places):
            # A string, so that no two places share a sequence; it is a masking, not a secret.
            draw = random.Random(f"{self.seed}/{batch.step}/{row}/{number}")  # noqa: S311
            picked = choose_tokens(words, share=self.config.masked, draw=draw)
            chosen[place, picked] = True
            for token in picked:
                kind = draw.random()
                if kind < HIDDEN:
                    token_ids[place, token] = self.mask_id
                elif kind < HIDDEN + REPLACED:
                    token_ids[place, token] = draw.choice(self._replacements)
        return token_ids, chosen

    def counts(self, batch: Batch) -> Mapping[str, int]:
        """One term a token that is predicted."""
        return {"masked": int(self.masked(batch)[1].sum())}

    def reads(self, batch: Batch) -> Inputs:
        """The inputs with some of their tokens hidden."""
        return replace(batch.inputs, token_ids=self.masked(batch)[0])

    def losses(self, head: Head, encoded: Encoded, batch: Batch) -> Losses:
        """Cross-entropy of the hidden tokens; only theirs are compared with the vocabulary."""
        total = self._token_losses(head, encoded, batch).loss.sum()
        return {"masked": TokenSum(total=total, count=self.counts(batch)["masked"]), **encoded.losses}

    def _token_losses(self, head: Head, encoded: Encoded, batch: Batch) -> TokenLosses:
        assert isinstance(head, LanguageHead), "made by this task"
        picked = encoded.at(self.masked(batch)[1])
        return vocabulary_losses(head, picked, batch.inputs.token_ids.gather(1, picked.positions))

    def predict(self, model: HeadedModel, rows: Sequence[TextRow]) -> list[MaskPrediction]:
        """Rows with the tokenizer's mask in their text get it filled; of others some tokens are hidden and counted."""
        blocks = [block for index, row in enumerate(rows) for block in self.encode(row, index=index)]
        asked = [block for block in blocks if self.mask_id in block.token_ids]
        hidden = [block for block in blocks if self.mask_id not in block.token_ids]
        totals = self._held_out(model, hidden, len(rows))
        fills: dict[tuple[int, int], tuple[tuple[Fill, ...], ...]] = {}
        self.in_batches(asked, lambda _, batch: fills.update(self._fill(model, batch)))
        return [
            MaskPrediction(
                loss=loss,
                correct=int(correct),
                count=int(count),
                fills=tuple(fill for place in sorted(fills) if place[0] == index for fill in fills[place]),
            )
            for index, (loss, correct, count) in enumerate(totals)
        ]

    def _held_out(self, model: HeadedModel, blocks: Sequence[Block], rows: int) -> list[list[float]]:
        """Loss, tokens found and tokens hidden of each row, summed in the order of the blocks."""
        found: dict[tuple[int, int], tuple[float, float, float]] = {}

        def look(_: list[int], batch: Batch) -> None:
            batch = replace(batch, step=_HELD_OUT)
            losses = self._token_losses(model.head, model.model(self.reads(batch)), batch)
            counts = self.masked(batch)[1].sum(1)
            keys = zip(batch.rows, batch.targets["number"].tolist(), strict=True)
            values = zip(losses.loss.sum(1).tolist(), losses.correct.sum(1).tolist(), counts.tolist(), strict=True)
            found.update(zip(keys, values, strict=True))

        self.in_batches(blocks, look)
        totals = [[0.0, 0.0, 0.0] for _ in range(rows)]
        for row, number in sorted(found):
            totals[row] = [held + more for held, more in zip(totals[row], found[row, number], strict=True)]
        return totals

    def _fill(self, model: HeadedModel, batch: Batch) -> dict[tuple[int, int], tuple[tuple[Fill, ...], ...]]:
        picked = model.model(batch.inputs).at(batch.inputs.token_ids == self.mask_id)
        best = model.head(picked).float().softmax(-1).topk(self.config.top_k)
        made = {}
        for place, key in enumerate(zip(batch.rows, batch.targets["number"].tolist(), strict=True)):
            tokens, scores = best.indices[place].tolist(), best.values[place].tolist()
            made[key] = tuple(
                tuple(Fill(token=str(self.tokenizer.id_to_token(token_id)), score=score)
                      for token_id, score in zip(tokens[mask], scores[mask], strict=True))
                for mask in range(int(picked.mask[place].sum()))
            )  # fmt: skip
        return made

    def score(self, rows: Sequence[TextRow], predictions: Sequence[MaskPrediction]) -> dict[str, float]:
        """``loss`` in nats a hidden token, ``perplexity``, ``accuracy`` in percent; ``log_likelihood`` is −loss.

        Raises:
            DataError: No row has a token that could be hidden.
        """
        count = sum(found.count for found in predictions)
        if not count:
            raise DataError(f"{len(rows)} rows without a token to hide", needed="held-out text")
        loss = sum(found.loss for found in predictions) / count
        return {
            "loss": loss,
            "perplexity": math.exp(min(loss, 700.0)),
            "accuracy": 100 * sum(found.correct for found in predictions) / count,
            "log_likelihood": -loss,
        }

    def calibrate(self, rows: Sequence[TextRow], predictions: Sequence[MaskPrediction]) -> dict[str, Any]:
        """Nothing: probabilities are the model's own."""
        return {}


def choose_tokens(words: Sequence[int], *, share: float, draw: random.Random) -> list[int]:
    """Places to predict, at least one where there is a word.

    Words come in random order and are taken whole while they fit into the share; one that does not is passed over.

    Args:
        words: Which word each token is a piece of, pieces side by side; -1 is never chosen.
        share: Of the tokens that may be chosen.
        draw: Where chance comes from.

    Example:
        >>> choose_tokens([-1, 0, 0, 1, -1], share=0.7, draw=random.Random(0))
        [1, 2]
    """
    pieces: dict[int, list[int]] = {}
    for place, word in enumerate(words):
        if word >= 0:
            pieces.setdefault(word, []).append(place)
    if not pieces:
        return []
    left = max(1, round(share * sum(len(places) for places in pieces.values())))
    order = list(pieces.values())
    draw.shuffle(order)
    picked: list[int] = []
    for places in order:
        if len(places) <= left:
            picked += places
            left -= len(places)
        if not left:
            break
    if not picked:
        # A short text whose only words are longer than its share still has one of them predicted.
        picked = min(order, key=len)
    return sorted(picked)
