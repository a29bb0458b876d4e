"""The contract of every architecture, and the one loop over its blocks.

Models are written for one process: no rank, no device, no communication.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from cypher.config import InferencePrecision
from cypher.data.batch import Inputs
from cypher.layers.attention import BlockContext, FullAttention
from cypher.layers.block import BlockOutput
from cypher.layers.feed_forward import FeedForward, GatedFeedForward
from cypher.layers.linear import Linear
from cypher.layers.sites import EmbeddingSite
from cypher.layers.state import State
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


class Head(nn.Module):
    """What is put on a model: ``Encoded`` in, a tensor of the task's own shape out."""

    def forward(self, encoded: Encoded) -> Tensor:
        """``encoded.hidden (rows, kept, width)`` to the task's logits."""
        raise AssertionError("a head says what it computes")


class Entered(NamedTuple):
    """What goes into the first block of a segment: ``(batch, kept, width)``, and what its blocks share."""

    hidden: Tensor
    context: BlockContext


class Model(nn.Module, ABC):
    """An architecture: what happens before the blocks, the blocks by segment, and what they share.

    Attributes:
        segments: Parts in forward order, each a ``ModuleDict`` of numbered blocks; pipelines cut between blocks.
        embedding_output: Where hidden states leave the embedding; a decoder's, where there are two.
        width: Of the hidden states.
        max_positions: Tokens a row may have; ``None`` where nothing limits them.
        remembers: Segments whose blocks keep a state while text is generated.
    """

    segments: nn.ModuleDict
    embedding_output: EmbeddingSite
    width: int
    max_positions: int | None = None
    remembers: tuple[str, ...] = ()
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

    @property
    def embedding_sites(self) -> tuple[EmbeddingSite, ...]:
        """Of every segment that begins with an embedding, in forward order; the last one is ``embedding_output``."""
        return (self.embedding_output,)

    @abstractmethod
    def token_vectors(self) -> Tensor:
        """The table that token ids are looked up in, ``(vocabulary, width)``."""

    @abstractmethod
    def enter(
        self, segment: str, inputs: Inputs, before: Tensor | None, state: State | None, *, scores: bool
    ) -> Entered:
        """What the blocks of one segment start from.

        Args:
            segment: Its name.
            inputs: Of the model.
            before: What the segment before it made; ``None`` for the first.
            state: Its ``begin_step`` is called here by the segment that remembers.
            scores: Whether blocks also return how much attention each token received.
        """

    def leave(self, segment: str, hidden: Tensor) -> Tensor:
        """What follows the last block of a segment: a norm, where blocks norm what they read."""
        return hidden

    @abstractmethod
    def language_head(self) -> Head:
        """Logits over the vocabulary, ``(rows, seq, vocabulary)``, for every token; owns ties and inverses.

        Raises:
            ModelError: The model predicts no tokens.
        """

    def pack(self, precision: InferencePrecision) -> None:
        """Merge what is attached and lay all weights out for inference in ``precision``; training is over.

        Args:
            precision: ``fp32``, ``bf16`` or ``int8``.
        """
        for module in self.modules():
            # The layers that pack several weights together come before those weights.
            if isinstance(module, Linear) and module.is_released:
                continue
            if isinstance(module, (FeedForward, FullAttention, GatedFeedForward, Linear)):
                module.pack(precision)
        if precision == "bf16":
            self.to(torch.bfloat16)
            self.compute_dtype = torch.bfloat16

    def forward(self, inputs: Inputs, state: State | None = None, *, scores: bool = False) -> Encoded:
        """Run all blocks in order.

        Args:
            inputs: Rows; with a state that has tokens already, what follows them.
            state: Of a generation; gains the tokens of ``inputs``.
            scores: Whether blocks also work out how much attention each token received.
        """
        losses: dict[str, TokenSum] = {}
        hidden: Tensor | None = None
        context: BlockContext | None = None
        for name, segment in self.segments.items():
            if state is not None and state.length and name not in self.remembers:
                continue  # an encoder has said all it has to say in the first step
            hidden, context = self.enter(name, inputs, hidden, state, scores=scores)
            hidden = hidden.to(self.compute_dtype)
            remembered = state if name in self.remembers else None
            for number, block in cast(nn.ModuleDict, segment).items():
                layer = None if remembered is None else remembered.layer(f"{name}.{number}")
                output: BlockOutput = block(hidden, context, layer)
                hidden = output.hidden
                losses.update(output.losses)
            hidden = self.leave(name, hidden)
        assert hidden is not None and context is not None, "a model has a segment"  # noqa: PT018
        mask = context.attention_mask[:, -hidden.shape[1] :]
        if state is not None and self.remembers:
            state.end_step(mask)
        seq = inputs.token_ids.shape[1]
        in_front = hidden.shape[1] - seq
        positions = torch.arange(-in_front, seq, device=hidden.device).clamp(min=-1)
        return Encoded(
            hidden=hidden,
            mask=mask,
            positions=positions.expand(len(hidden), -1),
            row_of=torch.arange(len(hidden), device=hidden.device),
            seq=seq,
            losses=losses,
        )
