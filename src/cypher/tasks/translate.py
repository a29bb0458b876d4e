"""Translation, or any text told from another (Vaswani et al. 2017, arXiv 1706.03762).

The decoder reads the target behind a start token and predicts it up to an end token (teacher forcing); both sides
share one vocabulary of byte-level BPE (Sennrich et al. 2016, arXiv 1508.07909, section 3.2: joint).
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer

from cypher.config.language import TranslateConfig
from cypher.data.batch import Batch, Inputs, batches_for_inference, pad_inputs
from cypher.data.batch_workers import each_batch
from cypher.data.texts import read_lines
from cypher.decode.greedy import greedy
from cypher.errors import ConfigError, DataError
from cypher.hub.tokenizer import SpecialTokens
from cypher.layers.token_sum import Losses, TokenSum
from cypher.models.headed import HeadedModel
from cypher.models.model import Encoded, Head, LanguageHead, Model
from cypher.tasks.vocabulary_loss import TokenLosses, vocabulary_losses
from cypher.train.task import Task

# Source tokens of one batch that is translated, padding included.
BATCH_TOKENS = 2048


@dataclass(frozen=True, kw_only=True)
class PairRow:
    """A text and what it becomes.

    Args:
        source: Is read.
        target: Is learnt; ``None`` asks for it.
    """

    source: str
    target: str | None = None


@dataclass(frozen=True, kw_only=True)
class EncodedPair:
    """A row as token ids.

    Args:
        row: Place of its row in the list of rows.
        source: With its end token.
        target: Between start and end token.
    """

    row: int
    source: tuple[int, ...]
    target: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Translation:
    """What a model made of a row.

    Args:
        text: Its translation; ``None`` where only the loss was asked for.
        loss: Of the row's own target, summed over its tokens in nats, without label smoothing.
        count: How many tokens; 0 without a target.
    """

    text: str | None
    loss: float
    count: int


class Translate(Task[PairRow, EncodedPair, Translation]):
    """The task: pairs, loss over the target, greedy translation, BLEU and chrF.

    Args:
        config: Lengths, label smoothing and what is scored.
        tokenizer: Of both sides.
        special: ``cls_id`` starts a target, ``sep_id`` ends both sides.

    Raises:
        ConfigError: BLEU is wanted and sacrebleu is not installed.
    """

    kind = "translate"
    metric = "log_likelihood"

    def __init__(self, config: TranslateConfig, *, tokenizer: Tokenizer, special: SpecialTokens) -> None:
        if config.with_bleu and importlib.util.find_spec("sacrebleu") is None:
            raise ConfigError(
                "task.with_bleu without sacrebleu", change="pip install nlp-cypher[translate], or set it to false"
            )
        self.config = config
        self.tokenizer = tokenizer
        self.special = special

    def head(self, model: Model) -> LanguageHead:
        """The model's own, tied to the target's embedding."""
        return model.language_head()

    def encode(self, row: PairRow, *, index: int) -> list[EncodedPair]:
        """One example a row; what is longer than ``max_length`` loses its end."""
        target = self._ids(row.target or "")
        return [
            EncodedPair(
                row=index,
                source=(*self._ids(row.source)[: self.config.max_length - 1], self.special.sep_id),
                # The start token takes the place that the end token has among what is predicted.
                target=(self.special.cls_id, *target[: self.config.max_length - 1], self.special.sep_id),
            )
        ]

    def _ids(self, text: str) -> list[int]:
        ids: list[int] = self.tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def length(self, example: EncodedPair) -> int:
        """Tokens of both sides."""
        return len(example.source) + len(example.target)

    def collate(self, examples: Sequence[EncodedPair]) -> Batch:
        """Targets: ``following (batch, seq)`` int64, the token behind each one of the target; padded."""
        source = pad_inputs([pair.source for pair in examples], pad_id=self.special.pad_id)
        target = pad_inputs([pair.target[:-1] for pair in examples], pad_id=self.special.pad_id)
        following = pad_inputs([pair.target[1:] for pair in examples], pad_id=self.special.pad_id).token_ids
        inputs = Inputs(token_ids=target.token_ids, attention_mask=target.attention_mask, source=source)
        return Batch(inputs=inputs, targets={"following": following}, rows=tuple(pair.row for pair in examples))

    def counts(self, batch: Batch) -> Mapping[str, int]:
        """One term a target token, the end included."""
        return {"target": int(batch.inputs.attention_mask.sum())}

    def losses(self, head: Head, encoded: Encoded, batch: Batch) -> Losses:
        """Cross-entropy of the target with label smoothing."""
        losses = _token_losses(head, encoded, batch, label_smoothing=self.config.label_smoothing)
        return {"target": TokenSum(total=losses.loss.sum(), count=self.counts(batch)["target"]), **encoded.losses}

    def predict(self, model: HeadedModel, rows: Sequence[PairRow]) -> list[Translation]:
        """Rows with a target get its loss, and their translation if it is to be scored; rows without, the latter."""
        pairs = [self.encode(row, index=index)[0] for index, row in enumerate(rows)]
        known = [pair for pair in pairs if rows[pair.row].target is not None]
        losses: dict[int, tuple[float, int]] = {}

        def look(chosen: list[int], batch: Batch) -> None:
            found = _token_losses(model.head, model.model(batch.inputs), batch, label_smoothing=0.0)
            counts = batch.inputs.attention_mask.sum(1).tolist()
            losses.update(zip(batch.rows, zip(found.loss.sum(1).tolist(), counts, strict=True), strict=True))

        self.in_batches(known, look)
        wanted = [index for index, row in enumerate(rows) if row.target is None or self.config.with_bleu]
        texts = dict(zip(wanted, self.translate(model.model, [rows[index].source for index in wanted]), strict=True))
        return [
            Translation(text=texts.get(index), loss=loss, count=count)
            for index in range(len(rows))
            for loss, count in [losses.get(index, (0.0, 0))]
        ]

    def translate(self, model: Model, sources: Sequence[str]) -> list[str]:
        """Greedy translations, sources of like length together."""
        pairs = [self.encode(PairRow(source=source), index=index)[0] for index, source in enumerate(sources)]
        texts = [""] * len(pairs)

        def write(chosen: list[int]) -> None:
            source = pad_inputs([pairs[place].source for place in chosen], pad_id=self.special.pad_id)
            start = torch.full((len(chosen), 1), self.special.cls_id)
            inputs = Inputs(
                token_ids=start, attention_mask=torch.ones_like(start, dtype=torch.bool), source=source
            )  # fmt: skip
            written = greedy(
                model, inputs, max_new_tokens=self.config.max_new_tokens, stop_ids=[self.special.sep_id]
            )  # fmt: skip
            for place, ids in zip(chosen, written, strict=True):
                texts[place] = self.tokenizer.decode(ids)

        lengths = [len(pair.source) for pair in pairs]
        each_batch(write, batches_for_inference(lengths, batch_tokens=BATCH_TOKENS))
        return texts

    def score(self, rows: Sequence[PairRow], predictions: Sequence[Translation]) -> dict[str, float]:
        """``loss`` in nats a target token, ``perplexity``, ``log_likelihood``; ``bleu`` and ``chrf`` if wanted.

        BLEU (Papineni et al. 2002) and chrF (Popović 2015) are sacrebleu's with its defaults (Post 2018, arXiv
        1804.08771), over texts as they are written, not over tokens.

        Raises:
            DataError: No row has a target.
        """
        count = sum(found.count for found in predictions)
        if not count:
            raise DataError(f"{len(rows)} rows without a target", needed="held-out pairs")
        loss = sum(found.loss for found in predictions) / count
        scores = {"loss": loss, "perplexity": math.exp(min(loss, 700.0)), "log_likelihood": -loss}
        if self.config.with_bleu:
            import sacrebleu

            known = [(row, found) for row, found in zip(rows, predictions, strict=True) if row.target is not None]
            texts, targets = [found.text or "" for _, found in known], [[row.target or "" for row, _ in known]]
            scores["bleu"] = sacrebleu.corpus_bleu(texts, targets).score
            scores["chrf"] = sacrebleu.corpus_chrf(texts, targets).score
        return scores

    def calibrate(self, rows: Sequence[PairRow], predictions: Sequence[Translation]) -> dict[str, Any]:
        """Nothing: probabilities are the model's own."""
        return {}


def _token_losses(head: Head, encoded: Encoded, batch: Batch, *, label_smoothing: float) -> TokenLosses:
    assert isinstance(head, LanguageHead), "made by the task"
    targets = batch.targets["following"]
    return vocabulary_losses(head, encoded.at(batch.inputs.attention_mask), targets, label_smoothing=label_smoothing)


def read_parallel(source: Path, target: Path) -> list[PairRow]:
    """Pairs from two files whose lines stand beside each other; pairs with an empty side are left out.

    Raises:
        DataError: The files have different numbers of lines, or no pair.
    """
    sources, targets = read_lines(source), read_lines(target)
    if len(sources) != len(targets):
        raise DataError(f"{source} has {len(sources)} lines and {target} {len(targets)}", needed="as many in both")
    pairs = zip(sources, targets, strict=True)
    rows = [PairRow(source=one.strip(), target=other.strip()) for one, other in pairs if one.strip() and other.strip()]
    if not rows:
        raise DataError(f"{source} and {target} have no pair", needed="at least one line in both")
    return rows
