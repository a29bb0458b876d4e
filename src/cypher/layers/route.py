"""Which of the attached parts a forward goes through, and how: the one way in which a place asks.

A *place* is a dictionary of attached parts: the plugs of a site, the deltas of a linear layer. What a place is given is
a :class:`Passage`; a :class:`Flow` sends it through some of the parts. Without a flow a passage goes through all of
them, in the order they were attached.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from typing import ClassVar

import torch
from torch import Tensor, nn

Tensors = tuple[Tensor | None, ...]


@dataclass(frozen=True, kw_only=True)
class Passage(ABC):
    """What a place is given.

    Args:
        parts: Attached here, by name.
        changing: What a part gives back changed; rows first.
        constant: What a part reads besides; rows first.
        adapter_ids: ``(batch,)`` int64, which child of a ``ByTask`` serves each row.
    """

    # Dimension of the tokens in all tensors; None where a part sees whole rows.
    token_dim: ClassVar[int | None] = None

    # Whether the last part comes first: what parts did is undone.
    backwards: ClassVar[bool] = False

    parts: nn.ModuleDict | dict[str, nn.Module]
    changing: Tensors
    constant: Tensors = ()
    adapter_ids: Tensor | None = None

    @abstractmethod
    def call(self, name: str) -> Tensors:
        """What the part of that name makes of what changes."""

    def together(self, names: Sequence[str]) -> Passage | None:
        """What several parts make of as many rows each, in order, in one go; ``None`` where no such way is known."""
        return None

    def join_rows(self, changed: Sequence[Tensors]) -> Tensors:
        """What changes of several passages, one below the other."""
        return tuple(torch.cat(_present(column)) for column in zip(*changed, strict=True))

    @property
    def batch(self) -> int:
        """Rows of what changes."""
        assert self.changing[0] is not None, "the first tensor is what a place is about"
        return len(self.changing[0])

    def become(self, changing: Tensors) -> Passage:
        """The same place, given something else."""
        return replace(self, changing=changing)

    def through(self, name: str) -> Passage:
        """What one part makes of it; itself where no part of that name is attached."""
        return self.become(self.call(name)) if name in self.parts else self

    def rows(self, chosen: slice | Tensor) -> Passage:
        """Some of the rows."""
        batch = self.batch

        def some(tensor: Tensor | None) -> Tensor | None:
            # A mask may have one row for all.
            return tensor if tensor is None or len(tensor) != batch else tensor[chosen]

        return replace(
            self,
            changing=tuple(map(some, self.changing)),
            constant=tuple(map(some, self.constant)),
            adapter_ids=some(self.adapter_ids),
        )

    def between(self, first: int, last: int) -> Passage:
        """The tokens ``[first, last)`` of every row."""
        dim, length = self._token_dim(), last - first

        def some(tensor: Tensor | None) -> Tensor | None:
            return tensor if tensor is None else tensor.narrow(dim, first, length)

        return replace(self, changing=tuple(map(some, self.changing)), constant=tuple(map(some, self.constant)))

    def with_rows_of(self, others: Sequence[Passage]) -> Passage:
        """The rows of several passages, one below the other."""
        return self.become(self.join_rows([other.changing for other in others]))

    def with_tokens_of(self, others: Sequence[Passage]) -> Passage:
        """The tokens of several passages, one behind the other."""
        dim = self._token_dim()
        columns = zip(*(other.changing for other in others), strict=True)
        return self.become(tuple(torch.cat(_present(column), dim) for column in columns))

    def mean_of(self, others: Sequence[Passage], weights: Sequence[float]) -> Passage:
        """The weighted sum of what several passages became."""
        columns = zip(*(other.changing for other in others), strict=True)
        return self.become(tuple(_weighted_sum(_present(column), weights) for column in columns))

    def _token_dim(self) -> int:
        assert self.token_dim is not None, "parts that see whole rows are refused before a forward"
        return self.token_dim


def _present(column: Sequence[Tensor | None]) -> list[Tensor]:
    return [tensor for tensor in column if tensor is not None]


def _weighted_sum(tensors: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    weighted = [tensor * weight for tensor, weight in zip(tensors, weights, strict=True)]
    total = weighted[0]
    for tensor in weighted[1:]:
        total = total + tensor
    return total


class Flow(ABC):
    """A way through the parts of any place.

    Args:
        names: Of all parts it may go through.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.names = frozenset(names)

    @abstractmethod
    def send(self, passage: Passage) -> Passage:
        """What the passage has become; unchanged where none of the parts is attached."""

    def concerns(self, parts: Iterable[str]) -> bool:
        """Whether any of its parts is among those of a place."""
        return not self.names.isdisjoint(parts)


@dataclass(frozen=True, kw_only=True)
class Route:
    """What the places of one forward, or of one block, follow.

    Args:
        flow: Through the parts; ``None`` goes through none of them.
        adapter_ids: ``(batch,)`` int64, as in ``Inputs``.
    """

    flow: Flow | None
    adapter_ids: Tensor | None = None


# Of the thread that runs the forward: micro-batches go side by side, a thread each.
_route: ContextVar[Route | None] = ContextVar("route", default=None)


@contextmanager
def following(route: Route | None) -> Iterator[None]:
    """Places inside follow ``route``; ``None`` goes through everything in the order it was attached."""
    token = _route.set(route)
    try:
        yield
    finally:
        _route.reset(token)


def go_through(passage: Passage) -> Tensors:
    """What the passage becomes on the route of the forward."""
    route = _route.get()
    if route is None:
        names = list(passage.parts)
        for name in reversed(names) if passage.backwards else names:
            passage = passage.through(name)
        return passage.changing
    if route.flow is None or not route.flow.concerns(passage.parts):
        return passage.changing
    return route.flow.send(replace(passage, adapter_ids=route.adapter_ids)).changing


@dataclass(frozen=True, kw_only=True)
class Arrangement:
    """Which attached parts a model goes through, and what that means for its rows.

    Args:
        flow: Through the parts of every place.
        copies: Each row of the inputs stands so often below each other, for a child each (Parallel).
        begins: Where the flow concerns something, in forward order: ``embedding``, and blocks by ``segment.number``,
            each with the first of its parts that has some. Rows are copied in front of the first that is not skipped,
            so what comes before runs once.
        skipped: Blocks whose parts are left out (AdapterDrop, Rücklé et al. 2021, arXiv 2010.11918).
        drop_in_training: In each training step the parts of the first 0 to so many blocks of every segment are left
            out, by a draw (section 3.1 of the same).
    """

    flow: Flow
    copies: int = 1
    begins: Mapping[str, str] = field(default_factory=dict)
    skipped: frozenset[str] = frozenset()
    drop_in_training: int = 0

    def copied_at(self, skipped: frozenset[str]) -> tuple[str, str] | None:
        """Block, and its part, in front of which rows are copied; ``None``: behind the last block.

        Args:
            skipped: Blocks whose parts are left out.
        """
        return next(((block, part) for block, part in self.begins.items() if block not in skipped), None)
