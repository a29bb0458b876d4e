"""Training of text vectors: each text finds what it belongs to among all others of its batch.

InfoNCE with in-batch negatives (van den Oord et al. 2018, arXiv 1807.03748; Karpukhin et al. 2020, arXiv 2004.04906,
section 3.2) and a gradient cache (Gao et al. 2021, arXiv 2101.06983), so that little memory does not mean few
negatives.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from cypher.config.embed import EmbedConfig
from cypher.data.batch import Batch, Inputs, batches_for_inference, pad_inputs
from cypher.data.batch_workers import each_batch
from cypher.errors import ConfigError, DataError
from cypher.hub.tokenizer import SpecialTokens
from cypher.layers.token_sum import Losses, TokenSum
from cypher.models.headed import HeadedModel
from cypher.models.model import Encoded, Head, Model
from cypher.tasks.correlation import spearman
from cypher.tasks.rank_scores import ranks_of, retrieval_scores
from cypher.train.task import Task

# Tokens of one inference batch, padding included.
BATCH_TOKENS = 1024
_FIRST, _SECOND, _NEGATIVE = range(3)


@dataclass(frozen=True, kw_only=True)
class EmbedRow:
    """Two texts that belong together, or how much they do.

    Args:
        first: Looks for the other.
        second: Belongs to it.
        negatives: Texts that seem to and do not; every text of the batch is compared with them.
        score: How alike the two are by people's judgment; such rows are only evaluated.
    """

    first: str
    second: str
    negatives: tuple[str, ...] = ()
    score: float | None = None


@dataclass(frozen=True, kw_only=True)
class EncodedTexts:
    """A row as token ids.

    Args:
        row: Place of its row in the list of rows.
        texts: First, second and negatives; which of them are equal counts.
        token_ids: Of each.
    """

    row: int
    texts: tuple[str, ...]
    token_ids: tuple[tuple[int, ...], ...]


@dataclass(frozen=True, kw_only=True)
class EmbedPrediction:
    """Unit vectors of a row's texts, each ``(width,)`` fp32."""

    first: Tensor
    second: Tensor
    negatives: tuple[Tensor, ...]


class VectorHead(Head):
    """Unit vectors of texts.

    Args:
        pooling: ``mean`` of the real tokens, or the ``first`` or ``last`` of them.
    """

    def __init__(self, pooling: str) -> None:
        super().__init__()
        self.pooling = pooling

    def forward(self, encoded: Encoded) -> Tensor:
        """``(rows, width)`` fp32, each of length 1."""
        hidden, mask = encoded.hidden.float(), encoded.mask
        if self.pooling == "mean":
            # The length of the sum is divided away.
            return F.normalize((hidden * mask.unsqueeze(-1)).sum(1), dim=-1)
        place = torch.arange(mask.shape[1], device=mask.device)
        if self.pooling == "first":
            real = mask & (encoded.positions >= 0)
            chosen = torch.where(real, place, mask.shape[1] - 1).amin(1)
        else:
            chosen = torch.where(mask, place, 0).amax(1)
        return F.normalize(hidden[torch.arange(len(hidden), device=mask.device), chosen], dim=-1)


class Contrast(Task[EmbedRow, EncodedTexts, EmbedPrediction]):
    """The task: texts, InfoNCE over the whole batch, vectors and scores.

    Args:
        config: Pooling, temperature and what is compared.
        tokenizer: Of the model, without truncation and padding.
        special: The ids it puts around texts.

    Raises:
        ConfigError: Parts are wanted without a gradient cache.
    """

    kind = "embed"
    metric = "mrr"
    whole_batch = True
    whole_model = True

    def __init__(self, config: EmbedConfig, *, tokenizer: Tokenizer, special: SpecialTokens) -> None:
        self.parts = config.parts or 1
        if self.parts > 1 and not config.gradient_cache:
            raise ConfigError(
                f"train.accumulation = {self.parts} for embed: each text would be compared with the texts of its part "
                "alone, which is another loss",
                change="set task.gradient_cache = true, which encodes in parts and compares all",
            )
        self.config = config
        self.tokenizer = tokenizer
        self.special = special

    def head(self, model: Model) -> VectorHead:
        """Pooling; it has nothing to learn."""
        return VectorHead(self.config.pooling)

    def encode(self, row: EmbedRow, *, index: int) -> list[EncodedTexts]:
        """One example a row; none for scored ones, which are not learnt from."""
        return [] if row.score is not None else [self._encoded(row, index)]

    def _encoded(self, row: EmbedRow, index: int) -> EncodedTexts:
        texts = (row.first, row.second, *row.negatives)
        return EncodedTexts(row=index, texts=texts, token_ids=tuple(self._ids(text) for text in texts))

    def _ids(self, text: str) -> tuple[int, ...]:
        ids = self.tokenizer.encode(text, add_special_tokens=False).ids
        return (self.special.cls_id, *ids[: self.config.max_length - 2], self.special.sep_id)

    def length(self, example: EncodedTexts) -> int:
        """Tokens of all its texts."""
        return sum(len(ids) for ids in example.token_ids)

    def collate(self, examples: Sequence[EncodedTexts]) -> Batch:
        """All first texts, then all second ones, then all negatives.

        Targets: ``role (texts,)`` int64, 0, 1 or 2; ``text (texts,)`` int64, the same number for equal texts.
        """
        n_negatives = max(len(example.texts) for example in examples) - 2
        order = [(place, role) for role in range(2 + n_negatives) for place in range(len(examples))
                 if role < len(examples[place].texts)]  # fmt: skip
        inputs = pad_inputs([examples[place].token_ids[role] for place, role in order], pad_id=self.special.pad_id)
        numbers: dict[str, int] = {}
        text = [numbers.setdefault(examples[place].texts[role], len(numbers)) for place, role in order]
        role = torch.tensor([min(role, _NEGATIVE) for _, role in order])
        rows = tuple(examples[place].row for place, _ in order)
        return Batch(inputs=inputs, targets={"role": role, "text": torch.tensor(text)}, rows=rows)

    def counts(self, batch: Batch) -> Mapping[str, int]:
        """One term a pair, in each direction."""
        pairs = int((batch.targets["role"] == _FIRST).sum())
        return {"contrast": pairs, "contrast_back": pairs} if self.config.symmetric else {"contrast": pairs}

    def step(self, model: HeadedModel, batch: Batch) -> Losses:
        """InfoNCE of every pair against all texts of the batch; extra losses of the blocks are left out.

        With a gradient cache the batch is encoded in parts that forget what they do not need for the vectors, and
        are encoded again, one at a time, when the gradient of their vectors is known.
        """
        vectors = self._vectors(model, batch.inputs)
        role, text = batch.targets["role"], batch.targets["text"]
        first, second = role == _FIRST, role == _SECOND
        total = contrast_loss(
            vectors[first], vectors[~first], text[first], text[~first], temperature=self.config.temperature
        )
        pairs = int(first.sum())
        if not self.config.symmetric:
            return {"contrast": TokenSum(total=total, count=pairs)}
        back = contrast_loss(
            vectors[second], vectors[first], text[second], text[first], temperature=self.config.temperature
        )
        return {
            "contrast": TokenSum(total=total, count=pairs, weight=0.5),
            "contrast_back": TokenSum(total=back, count=pairs, weight=0.5),
        }

    def _vectors(self, model: HeadedModel, inputs: Inputs) -> Tensor:
        """``(texts, width)``, encoded in parts of like length."""
        lengths = inputs.attention_mask.sum(1)
        order = lengths.argsort(descending=True, stable=True)

        def encode(chosen: Tensor) -> Tensor:
            seq = int(lengths[chosen].max())
            part = replace(
                inputs,
                token_ids=inputs.token_ids[chosen, :seq],
                attention_mask=inputs.attention_mask[chosen, :seq],
            )
            return cast(Tensor, model(part)[0])

        parts = order.chunk(self.parts)
        if self.config.gradient_cache:
            # The random state of each part comes back, so that dropout hides the same the second time.
            vectors = [cast(Tensor, checkpoint(encode, part, use_reentrant=False)) for part in parts]
        else:
            vectors = [encode(part) for part in parts]
        return torch.cat(vectors)[order.argsort()]

    def predict(self, model: HeadedModel, rows: Sequence[EmbedRow]) -> list[EmbedPrediction]:
        """The vectors of each row's texts."""
        texts = list(dict.fromkeys(text for row in rows for text in (row.first, row.second, *row.negatives)))
        token_ids = [self._ids(text) for text in texts]
        found: dict[str, Tensor] = {}

        def look(chosen: list[int]) -> None:
            vectors = model(pad_inputs([token_ids[place] for place in chosen], pad_id=self.special.pad_id))[0]
            found.update(zip((texts[place] for place in chosen), vectors.unbind(), strict=True))

        each_batch(look, batches_for_inference([len(ids) for ids in token_ids], batch_tokens=BATCH_TOKENS))
        return [
            EmbedPrediction(
                first=found[row.first],
                second=found[row.second],
                negatives=tuple(found[text] for text in row.negatives),
            )
            for row in rows
        ]

    def score(self, rows: Sequence[EmbedRow], predictions: Sequence[EmbedPrediction]) -> dict[str, float]:
        """Percent: how well each first text finds its second among all others of the held-out rows.

        Returns:
            ``recall@1, recall@5, recall@10, mrr`` of pairs; ``spearman`` of scored rows, which alone then also stand
            for ``mrr``, by which the best weights are chosen.

        Raises:
            DataError: There is nothing to compare.
        """
        both = list(zip(rows, predictions, strict=True))
        pairs = [(row, found) for row, found in both if row.score is None]
        scored = [(row, found) for row, found in both if row.score is not None]
        scores: dict[str, float] = {}
        if pairs:
            candidates: dict[str, Tensor] = {}
            for row, found in pairs:
                candidates.update(zip((row.second, *row.negatives), (found.second, *found.negatives), strict=True))
            names = {text: number for number, text in enumerate(candidates)}
            golds: dict[str, set[int]] = {}
            for row, _ in pairs:
                golds.setdefault(row.first, set()).add(names[row.second])
            queries = torch.stack([found.first for _, found in pairs])
            similarities = (queries @ torch.stack(list(candidates.values())).T).cpu().numpy()
            ranks = ranks_of(
                similarities,
                [names[row.second] for row, _ in pairs],
                also_right=[golds[row.first] for row, _ in pairs],
            )
            scores |= retrieval_scores(ranks)
        if scored:
            cosines = np.array([float(found.first @ found.second) for _, found in scored])
            scores["spearman"] = 100 * spearman(cosines, np.array([row.score for row, _ in scored]))
        if not scores:
            raise DataError("no held-out row", needed="pairs or scored pairs")
        scores.setdefault("mrr", scores.get("spearman", 0.0))
        return scores

    def calibrate(self, rows: Sequence[EmbedRow], predictions: Sequence[EmbedPrediction]) -> dict[str, Any]:
        """Nothing: vectors are compared, not read as probabilities."""
        return {}


def contrast_loss(
    queries: Tensor, candidates: Tensor, query_text: Tensor, candidate_text: Tensor, *, temperature: float
) -> Tensor:
    """``-Σ log softmax(queries · candidatesᵀ / temperature)`` at each query's own candidate.

    No candidate is a negative of a query whose own candidate has the same text, nor is one that belongs to another
    query of the same text: both are right answers.

    Args:
        queries: ``(queries, width)``, unit vectors.
        candidates: ``(candidates, width)``; the first ones belong to the queries in their order.
        query_text: ``(queries,)`` int64, the same number for equal texts.
        candidate_text: ``(candidates,)`` int64.
        temperature: Divides the cosines.

    Returns:
        Scalar, summed over the queries.
    """
    n_queries = len(queries)
    logits = queries @ candidates.T / temperature
    own = torch.arange(n_queries, device=queries.device)
    # right[i, t]: some query with the text of query i belongs to candidate t.
    alike = query_text.unsqueeze(1) == query_text
    same = candidate_text[:n_queries].unsqueeze(1) == candidate_text
    right = (alike.float() @ same.float()) > 0
    right[own, own] = False
    return F.cross_entropy(logits.masked_fill(right, float("-inf")), own, reduction="sum")
