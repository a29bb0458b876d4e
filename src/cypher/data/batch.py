"""Inputs, Batch, and batches of rows of like length.

Shapes: ``batch`` rows, ``seq`` tokens of the longest row; shorter rows are padded on the right.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """What a model reads.

    Args:
        token_ids: ``(batch, seq)`` int64.
        attention_mask: ``(batch, seq)`` bool, True = keep.
        segment_ids: ``(batch, seq)`` int64, which of two texts a token belongs to; ``None`` means all 0.
        positions: ``(batch, seq)`` int64; ``None`` means 0, 1, 2, ….
        source: What an encoder reads, for models that answer one text with another.
        adapter_ids: ``(batch,)`` int64, which of the adapters in a BatchSplit serves each row.
        groups: ``(batch, seq)`` int64, for a row of several texts that share their beginning: tokens of group 0 attend
            to each other alone, those of any other group to group 0 and to their own; ``None`` is all one group.
    """

    token_ids: Tensor
    attention_mask: Tensor
    segment_ids: Tensor | None = None
    positions: Tensor | None = None
    source: Inputs | None = None
    adapter_ids: Tensor | None = None
    groups: Tensor | None = None

    def __post_init__(self) -> None:
        assert self.attention_mask.dtype == torch.bool, "attention_mask is bool, True = keep"
        assert self.token_ids.shape == self.attention_mask.shape, "token_ids and attention_mask are (batch, seq)"

    def to(self, device: torch.device | str) -> Inputs:
        """The same inputs on ``device``."""
        return Inputs(
            token_ids=self.token_ids.to(device),
            attention_mask=self.attention_mask.to(device),
            segment_ids=None if self.segment_ids is None else self.segment_ids.to(device),
            positions=None if self.positions is None else self.positions.to(device),
            source=None if self.source is None else self.source.to(device),
            adapter_ids=None if self.adapter_ids is None else self.adapter_ids.to(device),
            groups=None if self.groups is None else self.groups.to(device),
        )

    def copied(self, copies: int) -> Inputs:
        """As many copies of all rows, one below the other."""

        def copy(tensor: Tensor | None) -> Tensor | None:
            return None if tensor is None else torch.cat([tensor] * copies)

        return replace(
            self,
            token_ids=torch.cat([self.token_ids] * copies),
            attention_mask=torch.cat([self.attention_mask] * copies),
            segment_ids=copy(self.segment_ids),
            positions=copy(self.positions),
            source=None if self.source is None else self.source.copied(copies),
            adapter_ids=copy(self.adapter_ids),
            groups=copy(self.groups),
        )


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Inputs with what should come out of them.

    Args:
        inputs: What the model reads.
        targets: What the task compares with, tensors by name; their shapes are the task's.
        rows: Position of each batch row in the list the batch was made from.
        step: Optimiser step it is for; what a task draws at random for a batch depends on seed and step alone, so that
            a resumed run draws the same.
    """

    inputs: Inputs
    targets: dict[str, Tensor]
    rows: tuple[int, ...]
    step: int = 0

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on ``device``."""
        targets = {name: target.to(device) for name, target in self.targets.items()}
        return replace(self, inputs=self.inputs.to(device), targets=targets)


def pad_inputs(
    token_ids: Sequence[Sequence[int]], *, pad_id: int, segment_ids: Sequence[Sequence[int]] | None = None
) -> Inputs:
    """Put rows of token ids together, padded on the right to the longest of them.

    Args:
        token_ids: Per row its token ids, at least one.
        pad_id: Token that fills the rest.
        segment_ids: Per row as many segment ids; filled with 0.
    """
    longest = max(len(row) for row in token_ids)
    ids = torch.tensor([[*row, *[pad_id] * (longest - len(row))] for row in token_ids], dtype=torch.int64)
    lengths = torch.tensor([len(row) for row in token_ids])
    mask = torch.arange(longest).unsqueeze(0) < lengths.unsqueeze(1)
    segments = None
    if segment_ids is not None:
        segments = torch.tensor([[*row, *[0] * (longest - len(row))] for row in segment_ids], dtype=torch.int64)
    return Inputs(token_ids=ids, attention_mask=mask, segment_ids=segments)


def batches_for_training(
    lengths: Sequence[int], *, batch_size: int, seed: int, epoch: int, pool: int = 64
) -> list[list[int]]:
    """A random order of all rows, cut into batches of like length.

    Rows are shuffled, sorted by length inside pools of ``pool`` batches, cut, and the batches shuffled: each epoch
    sees every row once in an order of its own, with little padding and without a drift from short to long.

    Args:
        lengths: Tokens of each row.
        batch_size: Rows of a batch; the last one may be smaller.
        seed: Together with ``epoch`` fixes the order, whatever ran before: a resumed run sees the same batches.
        epoch: Counted from 0.
        pool: Batches sorted together; larger pads less and mixes less.
    """
    random_source = random.Random(f"{seed}/{epoch}")  # noqa: S311 - an order of rows, not a secret
    order = list(range(len(lengths)))
    random_source.shuffle(order)
    batches: list[list[int]] = []
    for start in range(0, len(order), pool * batch_size):
        part = sorted(order[start : start + pool * batch_size], key=lambda row: lengths[row])
        batches += [part[first : first + batch_size] for first in range(0, len(part), batch_size)]
    random_source.shuffle(batches)
    return batches


def batches_for_inference(lengths: Sequence[int], *, batch_tokens: int) -> Iterator[list[int]]:
    """All rows, longest first, cut so that a batch has at most ``batch_tokens`` tokens with its padding.

    Longest first shows at once whether memory suffices. A row longer than ``batch_tokens`` stands alone.

    Args:
        lengths: Tokens of each row.
        batch_tokens: Rows times the longest of them, at most.

    Example:
        >>> list(batches_for_inference([3, 9, 4, 8], batch_tokens=18))
        [[1, 3], [2, 0]]
    """
    batch: list[int] = []
    for row in sorted(range(len(lengths)), key=lambda row: -lengths[row]):
        if batch and (len(batch) + 1) * lengths[batch[0]] > batch_tokens:
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch


def split_batch(rows: Sequence[int], parts: int) -> list[list[int]]:
    """Cut one batch into at most ``parts`` micro-batches of near equal size, in order.

    Args:
        rows: Of one batch.
        parts: At least 1; fewer come where there are fewer rows.
    """
    size = -(-len(rows) // parts)
    return [list(rows[start : start + size]) for start in range(0, len(rows), size)]
