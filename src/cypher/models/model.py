"""The contract of every architecture, and the one loop over its blocks.

Models are written for one process: no rank, no device, no communication.
"""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from cypher.config import InferencePrecision
from cypher.data.batch import Inputs
from cypher.layers.attention import BlockContext, FullAttention
from cypher.layers.block import BlockOutput
from cypher.layers.divisible import Divisible, Division
from cypher.layers.feed_forward import FeedForward, GatedFeedForward
from cypher.layers.linear import Linear
from cypher.layers.route import Arrangement, Route, following
from cypher.layers.sites import EmbeddingSite
from cypher.layers.state import LayerState, State
from cypher.layers.token_sum import TokenSum
from cypher.layers.vocabulary_logits import VocabularyLogits
from cypher.models.stretch import Carried, Copying, SegmentParts, route_of


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


class LanguageHead(Head):
    """A head over a vocabulary: ``(rows, seq, vocabulary)`` logits.

    Args:
        vocabulary_size: Of the logits; known also where the table of token vectors is in another process.
    """

    def __init__(self, vocabulary_size: int) -> None:
        super().__init__()
        self.vocabulary_size = vocabulary_size


class Model(nn.Module, ABC):
    """An architecture: what happens before the blocks, the blocks by segment, and what they share.

    Attributes:
        segments: Parts in forward order, each a ``ModuleDict`` of numbered blocks; pipelines cut between blocks.
        embedding_output: Where hidden states leave the embedding; a decoder's, where there are two.
        vocabulary_logits: The product of hidden states with :meth:`token_vectors`; language heads go through it.
        width: Of the hidden states.
        vocabulary_size: Tokens it knows, of what it writes where sources have a table of their own.
        max_positions: Tokens a row may have; ``None`` where nothing limits them.
        sources: Segments whose blocks attend to what the segment before them made.
        language_parts: Modules outside of the blocks that :meth:`language_head` needs, by name.
        remembers: Segments whose blocks keep a state while text is generated.
        takes_groups: Whether texts that share their beginning can be one row; see :class:`cypher.data.batch.Inputs`.
        arrangement: Which attached parts are gone through, and how; ``None`` is all of them, in the order they were
            attached.
        dropped: Blocks whose parts the present training step leaves out.
        checkpoints_activations: Whether the backward runs each block again instead of keeping what happened inside
            of it (Chen et al. 2016, arXiv 1604.06174).
    """

    segments: nn.ModuleDict
    embedding_output: EmbeddingSite
    vocabulary_logits: VocabularyLogits
    width: int
    vocabulary_size: int
    max_positions: int | None = None
    sources: tuple[str, ...] = ()
    language_parts: tuple[str, ...] = ()
    remembers: tuple[str, ...] = ()
    takes_groups: bool = False
    compute_dtype: torch.dtype = torch.float32
    arrangement: Arrangement | None = None
    dropped: frozenset[str] = frozenset()
    checkpoints_activations: bool = False

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

        Frozen weights are stored in it; trained ones stay fp32 and are cast where they are used, so that small updates
        are not rounded away.
        """
        self.compute_dtype = dtype
        for parameter in self.parameters():
            if not parameter.requires_grad:
                parameter.data = parameter.data.to(dtype)

    def lay_out_frozen(self) -> None:
        """Bring frozen weights of linear layers into the layout of the processor's kernels, where it has any."""
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
    def segment_parts(self, segment: str) -> SegmentParts:
        """What a segment needs beside its blocks; the rest of the model is needed behind the last block, if at all.

        Args:
            segment: Its name.
        """

    def segment_inputs(self, segment: str, inputs: Inputs) -> Inputs:
        """What a segment reads: tokens of its hidden states are those of these inputs.

        Args:
            segment: Its name.
            inputs: Of the model.
        """
        return inputs

    @abstractmethod
    def embed(self, segment: str, inputs: Inputs, before: Carried | None, state: State | None) -> Carried:
        """What the first block of a segment is given.

        Args:
            segment: Its name.
            inputs: Of the model.
            before: What the segment before it made; ``None`` for the first, and where a state has it.
            state: Of a generation.
        """

    @abstractmethod
    def context(
        self, segment: str, inputs: Inputs, carried: Carried, state: State | None, *, scores: bool
    ) -> BlockContext:
        """What the blocks of a segment share, from what the first of them, or any later one, is given.

        Args:
            segment: Its name.
            inputs: Of the model.
            carried: Its ``hidden`` is not looked at.
            state: Its ``begin_step`` is called here by the segment that remembers.
            scores: Whether blocks also return how much attention each token received.
        """

    def tensor_plan(self) -> dict[str, Division]:
        """How each part may be divided over processes, by its name.

        A parameter follows the longest of these names that it is, or lies under. Bricks say it of themselves; an
        architecture adds what it has around its blocks, and a parameter that nothing names is refused.
        """
        return {
            f"{name}.{part}": division
            for name, brick in self.named_modules()
            if isinstance(brick, Divisible)
            for part, division in brick.divisions.items()
            if getattr(brick, part) is not None
        }

    def leave(self, segment: str, hidden: Tensor) -> Tensor:
        """What follows the last block of a segment: a norm, where blocks norm what they read."""
        return hidden

    @abstractmethod
    def language_head(self) -> LanguageHead:
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
        return self.encoded(inputs, self.run(inputs, state=state, scores=scores), state)

    def copies_before(self, place: int, inputs: Inputs) -> int:
        """Copies of each row, for adapters side by side, that a block is given.

        Args:
            place: Of the block in :meth:`blocks`.
            inputs: Of the whole model.
        """
        behind = [name for name, _ in self.blocks()][:place]
        return Copying(self.arrangement, self._dropped_now, inputs, None, behind=behind).copies

    @property
    def _dropped_now(self) -> frozenset[str]:
        return self.dropped if self.training else frozenset()

    def run(
        self,
        inputs: Inputs,
        carried: Carried | None = None,
        *,
        stretch: range | None = None,
        state: State | None = None,
        scores: bool = False,
    ) -> Carried:
        """Run some of the blocks: those before them may have run elsewhere, and those behind them may run elsewhere.

        Args:
            inputs: Of the whole model.
            carried: What the block before the first of them made; ``None`` where there is none.
            stretch: Places of the blocks in :meth:`blocks`, without a gap; ``None`` is all of them.
            state: Of a generation; gains the tokens of ``inputs``.
            scores: Whether blocks also work out how much attention each token received.
        """
        assert inputs.groups is None or self.takes_groups, "supports() refuses tasks that need groups of tokens"
        names = [name for name, _ in self.blocks()]
        wanted = set(names if stretch is None else names[stretch.start : stretch.stop])
        first = 0 if stretch is None else stretch.start
        copying = Copying(self.arrangement, self._dropped_now, inputs, state, behind=names[:first])
        for name, segment in self.segments.items():
            numbers = list(cast(nn.ModuleDict, segment))
            if state is not None and state.length and name not in self.remembers:
                continue  # an encoder has said all it has to say in the first step
            if not wanted.intersection(f"{name}.{number}" for number in numbers):
                continue
            remembered = state if name in self.remembers else None
            context: BlockContext | None = None
            for number, block in cast(nn.ModuleDict, segment).items():
                place = f"{name}.{number}"
                if place not in wanted:
                    continue
                if number == numbers[0]:
                    with following(copying.route):
                        carried = self.embed(name, copying.inputs, carried, state)
                    carried = replace(carried, hidden=carried.hidden.to(self.compute_dtype))
                assert carried is not None, "a stretch in the middle is given what the one before it made"
                if context is None:
                    context = self.context(name, copying.inputs, carried, state, scores=scores)
                layer = None if remembered is None else remembered.layer(place)
                given = copying.before(place, context)
                output = self._through(block, carried.hidden, given, layer, copying.route_in(place))
                losses = {**carried.losses, **output.losses}
                carried = replace(carried, hidden=output.hidden, losses=losses)
                carried, context = copying.behind(place, carried, context)
                if number == numbers[-1]:
                    carried = replace(carried, hidden=self.leave(name, carried.hidden))
        assert carried is not None, "a model has a block"
        return copying.at_last(carried) if names[-1] in wanted else carried

    def encoded(self, inputs: Inputs, carried: Carried, state: State | None = None) -> Encoded:
        """What the last block made, as the model gives it.

        Args:
            inputs: Of the whole model.
            carried: Of the last stretch.
            state: Of a generation.
        """
        hidden, mask, seq = carried.hidden, carried.mask, inputs.token_ids.shape[1]
        if state is not None and self.remembers:
            state.end_step(mask)
        positions = torch.arange(seq - hidden.shape[1], seq, device=hidden.device).clamp(min=-1)
        copies = 1 if self.arrangement is None else self.arrangement.copies
        if len(inputs.token_ids) != len(hidden):  # with a state what is given has the copies already
            inputs = inputs.copied(copies)
        return Encoded(
            hidden=hidden,
            mask=mask,
            positions=positions.expand(len(hidden), -1),
            row_of=torch.arange(len(hidden) // copies, device=hidden.device).repeat(copies),
            seq=seq,
            losses=carried.losses,
            route=route_of(self.arrangement, inputs),
        )

    def _through(
        self, block: nn.Module, hidden: Tensor, context: BlockContext, state: LayerState | None, route: Route | None
    ) -> BlockOutput:
        """One block, whose parts follow a route; when it is run again, they follow it again."""

        def run(hidden: Tensor) -> BlockOutput:
            with following(route):
                output: BlockOutput = block(hidden, context, state)
            return output

        if self.checkpoints_activations and torch.is_grad_enabled():
            return cast(BlockOutput, checkpoint(run, hidden, use_reentrant=False))
        return run(hidden)
