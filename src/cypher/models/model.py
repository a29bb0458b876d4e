"""The contract of every architecture, and the one loop over its blocks.

Models are written for one process: no rank, no device, no communication.
"""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from cypher.config import InferencePrecision
from cypher.data.batch import Inputs
from cypher.layers.attention import BlockContext, FullAttention, RowCopies
from cypher.layers.block import BlockOutput
from cypher.layers.feed_forward import FeedForward, GatedFeedForward
from cypher.layers.linear import Linear
from cypher.layers.route import Arrangement, Route, following
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
        route: What the model's places followed; heads that go back through a place follow it too.
    """

    hidden: Tensor
    mask: Tensor
    positions: Tensor
    row_of: Tensor
    seq: int
    losses: Mapping[str, TokenSum] = field(default_factory=dict)
    route: Route | None = None

    def scatter(self) -> Tensor:
        """Hidden states at the places of their tokens, ``(rows, seq, width)``; zero where a token was removed."""
        if self.hidden.shape[1] == self.seq:
            return self.hidden
        rows, _, width = self.hidden.shape
        # Padding and rows in front land in one extra last place, which is cut off.
        place = self.positions.where(self.mask & (self.positions >= 0), self.seq)
        spread = self.hidden.new_zeros(rows, self.seq + 1, width)
        return spread.scatter(1, place.unsqueeze(-1).expand_as(self.hidden), self.hidden)[:, : self.seq]

    def at(self, chosen: Tensor) -> Encoded:
        """Only the chosen tokens of each row: a head over a large vocabulary need not look at the others.

        Args:
            chosen: ``(rows, seq)`` bool.

        Returns:
            ``hidden (rows, most, width)`` in their order, ``most`` being the largest number chosen in a row; rows with
            fewer are padded, and ``mask`` says where.
        """
        most = int(chosen.sum(1).max())
        place = chosen.to(torch.int8).argsort(dim=1, descending=True, stable=True)[:, :most]
        hidden = self.scatter()
        return replace(
            self,
            hidden=hidden.gather(1, place.unsqueeze(-1).expand(-1, -1, hidden.shape[-1])),
            mask=chosen.gather(1, place),
            positions=place,
            seq=most,
        )


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
        takes_groups: Whether texts that share their beginning can be one row; see :class:`cypher.data.batch.Inputs`.
        arrangement: Which attached parts are gone through, and how; ``None`` is all of them, in the order they were
            attached.
        dropped: Blocks whose parts the present training step leaves out.
    """

    segments: nn.ModuleDict
    embedding_output: EmbeddingSite
    width: int
    max_positions: int | None = None
    remembers: tuple[str, ...] = ()
    takes_groups: bool = False
    compute_dtype: torch.dtype = torch.float32
    arrangement: Arrangement | None = None
    dropped: frozenset[str] = frozenset()

    def blocks(self) -> Iterator[tuple[str, nn.Module]]:
        """All blocks with their names, ``segment.number``, in forward order."""
        for segment, blocks in self.segments.items():
            for number, block in cast(nn.ModuleDict, blocks).items():
                yield f"{segment}.{number}", block

    def begin_step(self, *, seed: int, step: int) -> None:
        """Draw what is random about the structure of one training step, from seed and step alone."""
        most = 0 if self.arrangement is None else self.arrangement.drop_in_training
        depth = random.Random(f"{seed}/{step}").randint(0, most)  # noqa: S311 - a structure, not a secret
        self.dropped = frozenset(name for name, _ in self.blocks() if int(name.rpartition(".")[2]) < depth)

    def prepare_training(self, dtype: torch.dtype) -> None:
        """Run hidden states and matrix products in ``dtype`` from now on.

        Frozen weights are stored in it, those of linear layers also in the layout of the processor's kernels; trained
        ones stay fp32 and are cast where they are used, so that small updates are not rounded away.
        """
        self.compute_dtype = dtype
        for parameter in self.parameters():
            if not parameter.requires_grad:
                parameter.data = parameter.data.to(dtype)
        for module in self.modules():
            if isinstance(module, Linear):
                module.freeze()

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
        assert inputs.groups is None or self.takes_groups, "supports() refuses tasks that need groups of tokens"
        losses: dict[str, TokenSum] = {}
        hidden: Tensor | None = None
        context: BlockContext | None = None
        copying = _Copying(self, inputs, state)
        for name, segment in self.segments.items():
            if state is not None and state.length and name not in self.remembers:
                continue  # an encoder has said all it has to say in the first step
            with following(copying.route):
                hidden, context = self.enter(name, copying.inputs, hidden, state, scores=scores)
            hidden = hidden.to(self.compute_dtype)
            remembered = state if name in self.remembers else None
            for number, block in cast(nn.ModuleDict, segment).items():
                place = f"{name}.{number}"
                layer = None if remembered is None else remembered.layer(place)
                with following(copying.route_in(place)):
                    output: BlockOutput = block(hidden, copying.before(place, context), layer)
                hidden, context = output.hidden, copying.behind(place, context)
                losses.update(output.losses)
            hidden = self.leave(name, hidden)
        assert hidden is not None and context is not None, "a model has a segment"  # noqa: PT018
        hidden, context = copying.at_last(hidden, context)
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
            row_of=torch.arange(len(hidden) // copying.copies, device=hidden.device).repeat(copying.copies),
            seq=seq,
            losses=losses,
            route=copying.route,
        )


class _Copying:
    """The arrangement at work in one forward: which route a block follows, and where rows are copied for Parallel.

    Args:
        model: Its arrangement is followed.
        inputs: As the model is given them.
        state: Has a row for every row of every block, so with one all blocks begin with the copies.
    """

    def __init__(self, model: Model, inputs: Inputs, state: State | None) -> None:
        arrangement = model.arrangement
        self.inputs, self.copies, self._flow = inputs, 1, None if arrangement is None else arrangement.flow
        self._is_arranged = arrangement is not None
        self._skipped, self._wanted = frozenset[str](), 1
        self._block, self._part = "", ""
        if arrangement is None:
            return
        self._skipped = arrangement.skipped | (model.dropped if model.training else frozenset())
        self._wanted = arrangement.copies
        self._block, self._part = arrangement.copied_at(self._skipped) or ("", "")
        if state is not None and state.length:
            self.copies = self._wanted  # what is given follows the rows that the first step has copied
        elif state is not None or self._block == "embedding":
            self._copy()

    def _copy(self) -> None:
        self.inputs, self.copies = self.inputs.copied(self._wanted), self._wanted

    @property
    def route(self) -> Route | None:
        """Of everything but the blocks."""
        return Route(flow=self._flow, adapter_ids=self.inputs.adapter_ids) if self._is_arranged else None

    def route_in(self, block: str) -> Route | None:
        """Of one block, which may leave its parts out."""
        return Route(flow=None) if block in self._skipped else self.route

    def before(self, block: str, context: BlockContext) -> BlockContext:
        """What a block is given, which copies the rows itself where it is the first that needs them."""
        if self.copies == self._wanted or block != self._block:
            return context
        return replace(context, copying=RowCopies(self._part, self._wanted))

    def behind(self, block: str, context: BlockContext) -> BlockContext:
        """The context of the rows that a block has made."""
        if self.copies == self._wanted or block != self._block:
            return context
        self._copy()
        return context.copied(self.copies)

    def at_last(self, hidden: Tensor, context: BlockContext) -> Entered:
        """Behind the last block: a head has rows for every child, even if no block needed them."""
        if self.copies == self._wanted:
            return Entered(hidden, context)
        self._copy()
        return Entered(torch.cat([hidden] * self.copies), context.copied(self.copies))
