"""What passes from block to block, and how a stretch of blocks follows an arrangement.

A model runs as one stretch; a pipeline runs some of its blocks here and the others elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from cypher.data.batch import Inputs
from cypher.layers.attention import BlockContext, RowCopies
from cypher.layers.route import Arrangement, Route
from cypher.layers.state import State
from cypher.layers.token_sum import TokenSum


@dataclass(frozen=True, kw_only=True)
class Carried:
    """What one block hands to the next: with the inputs, all that the blocks behind it need.

    Args:
        hidden: ``(rows, kept, width)``.
        mask: ``(rows, kept)`` bool, True = a real token; what was put in front of the tokens included.
        source: ``(rows, source_kept, width)``, what an encoder made, while a decoder runs.
        source_mask: ``(rows, source_kept)`` bool.
        losses: Extra losses of the blocks up to here, by name.
    """

    hidden: Tensor
    mask: Tensor
    source: Tensor | None = None
    source_mask: Tensor | None = None
    losses: Mapping[str, TokenSum] = field(default_factory=dict)

    def around(self, copies: int) -> Carried:
        """As many copies of all rows, one below the other, of everything but the hidden states, which have them."""

        def copy(tensor: Tensor | None) -> Tensor | None:
            return None if tensor is None else torch.cat([tensor] * copies)

        return replace(
            self,
            mask=torch.cat([self.mask] * copies),
            source=copy(self.source),
            source_mask=copy(self.source_mask),
        )


@dataclass(frozen=True, kw_only=True)
class SegmentParts:
    """Modules outside of the blocks that a segment needs, by their names in the model.

    Args:
        entering: Where its first block runs.
        leaving: Where its last block runs.
    """

    entering: tuple[str, ...] = ()
    leaving: tuple[str, ...] = ()


class Copying:
    """The arrangement at work in one stretch: which route a block follows, and where rows are copied for Parallel.

    Args:
        arrangement: Is followed; ``None`` goes through everything.
        dropped: Blocks whose parts the present training step leaves out.
        inputs: As the model is given them.
        state: Has a row for every row of every block, so with one all blocks begin with the copies.
        behind: Blocks that have run elsewhere.
    """

    def __init__(
        self,
        arrangement: Arrangement | None,
        dropped: frozenset[str],
        inputs: Inputs,
        state: State | None,
        *,
        behind: Sequence[str] = (),
    ) -> None:
        self.arrangement, self.inputs, self.copies = arrangement, inputs, 1
        self._skipped, self._wanted = frozenset[str](), 1
        self._block, self._part = "", ""
        if arrangement is None:
            return
        self._skipped = arrangement.skipped | dropped
        self._wanted = arrangement.copies
        self._block, self._part = arrangement.copied_at(self._skipped) or ("", "")
        if state is not None and state.length:
            self.copies = self._wanted  # what is given follows the rows that the first step has copied
        elif state is not None or self._block == "embedding" or self._block in behind:
            self._copy()

    def _copy(self) -> None:
        self.inputs, self.copies = self.inputs.copied(self._wanted), self._wanted

    @property
    def route(self) -> Route | None:
        """Of everything but the blocks."""
        return route_of(self.arrangement, self.inputs)

    def route_in(self, block: str) -> Route | None:
        """Of one block, which may leave its parts out."""
        return Route(flow=None) if block in self._skipped else self.route

    def before(self, block: str, context: BlockContext) -> BlockContext:
        """What a block is given, which copies the rows itself where it is the first that needs them."""
        if self.copies == self._wanted or block != self._block:
            return context
        return replace(context, copying=RowCopies(self._part, self._wanted))

    def behind(self, block: str, carried: Carried, context: BlockContext) -> tuple[Carried, BlockContext]:
        """What goes with the rows that a block has made."""
        if self.copies == self._wanted or block != self._block:
            return carried, context
        self._copy()
        return carried.around(self.copies), context.copied(self.copies)

    def at_last(self, carried: Carried) -> Carried:
        """Behind the last block: a head has rows for every child, even if no block needed them."""
        if self.copies == self._wanted:
            return carried
        self._copy()
        return replace(carried.around(self.copies), hidden=torch.cat([carried.hidden] * self.copies))


def route_of(arrangement: Arrangement | None, inputs: Inputs) -> Route | None:
    """What a model's places follow.

    Args:
        arrangement: Of the model.
        inputs: With the copies that the arrangement makes.
    """
    return None if arrangement is None else Route(flow=arrangement.flow, adapter_ids=inputs.adapter_ids)
