"""The contract of every architecture, and the one loop over its blocks.

Models are written for one process: no rank, no device, no communication.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import cast

import torch
from torch import Tensor, nn

from cypher.config import InferencePrecision
from cypher.data.batch import Inputs
from cypher.layers.attention import BlockContext
from cypher.layers.block import BlockOutput
from cypher.layers.token_sum import TokenSum


@dataclass(frozen=True, kw_only=True)
class Encoded:
    """What a model made of its inputs.

    Args:
        hidden: ``(rows, kept, width)``; ``kept`` is smaller than ``seq`` where tokens were removed on the way.
        mask: ``(rows, kept)`` bool, True = a real token.
        positions: ``(rows, kept)`` int64, place of each kept token in its input row; -1 for rows put in front.
        row_of: ``(rows,)`` int64, input row of each output row.
        seq: Tokens of the padded input.
        losses: Extra losses of the blocks, by name.
    """

    hidden: Tensor
    mask: Tensor
    positions: Tensor
    row_of: Tensor
    seq: int
    losses: Mapping[str, TokenSum] = field(default_factory=dict)

    def scatter(self) -> Tensor:
        """Hidden states at the places of their tokens, ``(rows, seq, width)``; zero where a token was removed."""
        if self.hidden.shape[1] == self.seq:
            return self.hidden
        rows, _, width = self.hidden.shape
        # Padding and rows in front land in one extra last place, which is cut off.
        place = self.positions.where(self.mask & (self.positions >= 0), self.seq)
        spread = self.hidden.new_zeros(rows, self.seq + 1, width)
        return spread.scatter(1, place.unsqueeze(-1).expand_as(self.hidden), self.hidden)[:, : self.seq]


class Model(nn.Module, ABC):
    """An architecture: what happens before the blocks, the blocks by segment, and what they share.

    Attributes:
        segments: Parts in forward order, each a ``ModuleDict`` of numbered blocks; pipelines cut between blocks.
        width: Of the hidden states.
    """

    segments: nn.ModuleDict
    width: int
    compute_dtype: torch.dtype = torch.float32

    def prepare_training(self, dtype: torch.dtype) -> None:
        """Run hidden states and matrix products in ``dtype`` from now on.

        Frozen weights are stored in it; trained ones stay fp32 and are cast where they are used, so that small
        updates are not rounded away.
        """
        self.compute_dtype = dtype
        for parameter in self.parameters():
            if not parameter.requires_grad:
                parameter.data = parameter.data.to(dtype)

    @abstractmethod
    def token_vectors(self) -> Tensor:
        """The table that token ids are looked up in, ``(vocabulary, width)``."""

    @abstractmethod
    def embed(self, inputs: Inputs) -> Tensor:
        """Hidden states that enter the first block, ``(batch, seq, width)``."""

    @abstractmethod
    def context(self, inputs: Inputs, *, scores: bool = False) -> BlockContext:
        """What all blocks of one forward share."""

    @abstractmethod
    def pack(self, precision: InferencePrecision) -> None:
        """Merge what is attached and lay all weights out for inference in ``precision``; training is over."""

    def forward(self, inputs: Inputs) -> Encoded:
        """Run all blocks in order."""
        context = self.context(inputs)
        hidden = self.embed(inputs).to(self.compute_dtype)
        losses: dict[str, TokenSum] = {}
        for segment in self.segments.values():
            for block in cast(nn.ModuleDict, segment).values():
                output: BlockOutput = block(hidden, context)
                hidden = output.hidden
                losses.update(output.losses)
        batch, seq = inputs.token_ids.shape
        return Encoded(
            hidden=hidden,
            mask=inputs.attention_mask,
            positions=torch.arange(seq, device=hidden.device).expand(batch, seq),
            row_of=torch.arange(batch, device=hidden.device),
            seq=seq,
            losses=losses,
        )
