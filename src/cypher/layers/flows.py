"""Ways through attached parts: one after the other, by rows, by tokens, averaged, fused.

The compositions of AdapterHub (Pfeiffer et al. 2020, arXiv 2007.07779; Poth et al. 2023, arXiv 2311.11077, section 4)
come down to these.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import cast

import torch
from torch import Tensor

from cypher.errors import ModelError
from cypher.layers.passages import JoinPassage
from cypher.layers.plugs import Change
from cypher.layers.route import Flow, Passage


class One(Flow):
    """Through one part.

    Args:
        name: Of the part.
    """

    def __init__(self, name: str) -> None:
        super().__init__([name])
        self.name = name

    def send(self, passage: Passage) -> Passage:
        """What the part makes of it."""
        return passage.through(self.name)


class _Branching(Flow):
    """A flow with others inside.

    Args:
        children: In order.
    """

    def __init__(self, children: Sequence[Flow]) -> None:
        super().__init__([name for child in children for name in child.names])
        self.children = tuple(children)


class InOrder(_Branching):
    """Through all children, one after the other."""

    def send(self, passage: Passage) -> Passage:
        """What the last child makes of it."""
        for child in reversed(self.children) if passage.backwards else self.children:
            passage = child.send(passage)
        return passage


class ByRows(_Branching):
    """Each child gets rows of its own.

    Args:
        children: In order of the rows.
        sizes: Rows of each; ``None`` gives all as many.
    """

    def __init__(self, children: Sequence[Flow], sizes: Sequence[int] | None = None) -> None:
        super().__init__(children)
        self.sizes = None if sizes is None else tuple(sizes)

    def send(self, passage: Passage) -> Passage:
        """The children's rows, in order.

        Raises:
            ModelError: The batch has another number of rows.
        """
        sizes = self.sizes or (passage.batch // len(self.children),) * len(self.children)
        if sum(sizes) != passage.batch:
            raise ModelError(
                f"a batch of {passage.batch} rows for {' + '.join(map(str, sizes))}", needed=f"{sum(sizes)} rows"
            )
        names = [child.name for child in self.children if isinstance(child, One)]
        if len(names) == len(self.children) and len(set(sizes)) == 1:
            together = passage.together(names)
            if together is not None:
                return together
        ends = list(accumulate(sizes))
        return passage.with_rows_of(
            [
                child.send(passage.rows(slice(end - size, end)))
                for child, size, end in zip(self.children, sizes, ends, strict=True)
                if size
            ]
        )


class ByTask(_Branching):
    """Each row goes through the child that ``Inputs.adapter_ids`` names, wherever it stands in the batch."""

    def send(self, passage: Passage) -> Passage:
        """The rows in their own order.

        Raises:
            ModelError: The inputs do not say which child serves which row.
        """
        ids = passage.adapter_ids
        if ids is None or len(ids) != passage.batch or not bool(((ids >= 0) & (ids < len(self.children))).all()):
            raise ModelError(
                "rows without an adapter of their own",
                needed=f"Inputs.adapter_ids, a number from 0 to {len(self.children) - 1} for each row",
            )
        order = ids.argsort(stable=True)
        counts = torch.bincount(ids, minlength=len(self.children)).tolist()
        together = ByRows(self.children, counts).send(passage.rows(order))
        return together.rows(order.argsort())


class ByTokens(_Branching):
    """Each child gets a stretch of every row.

    Args:
        children: In order of the tokens.
        sizes: Tokens of each; the last takes what is left.
    """

    def __init__(self, children: Sequence[Flow], sizes: Sequence[int]) -> None:
        super().__init__(children)
        self.sizes = tuple(sizes)

    def send(self, passage: Passage) -> Passage:
        """The children's tokens, in order.

        Raises:
            ModelError: The rows are too short.
        """
        assert passage.token_dim is not None and passage.changing[0] is not None  # noqa: PT018
        seq = passage.changing[0].shape[passage.token_dim]
        ends = list(accumulate(self.sizes))
        if seq < ends[-2]:
            raise ModelError(f"{seq} tokens split at {ends[-2]}", needed="longer rows, or a split further to the left")
        ends[-1] = seq
        return passage.with_tokens_of(
            [
                child.send(passage.between(first, last))
                for child, first, last in zip(self.children, [0, *ends], ends, strict=False)
                if last > first
            ]
        )


class Mean(_Branching):
    """The weighted sum of what the children make of the same passage.

    Args:
        children: All given the same.
        weights: One a child.
    """

    def __init__(self, children: Sequence[Flow], weights: Sequence[float]) -> None:
        super().__init__(children)
        self.weights = tuple(weights)

    def send(self, passage: Passage) -> Passage:
        """A child that is not attached here counts as no change."""
        return passage.mean_of([child.send(passage) for child in self.children], self.weights)


class Fused(_Branching):
    """The children's changes weighed by attention, token by token (AdapterFusion).

    Args:
        children: Single parts or stacks of them.
        name: Of the fusion at the place.
    """

    def __init__(self, children: Sequence[One | InOrder], name: str) -> None:
        super().__init__(children)
        self.name = name

    def send(self, passage: Passage) -> Passage:
        """The update with what the fusion mixes."""
        if not self.concerns(passage.parts):  # a place of what is stacked below the fusion
            return passage
        assert isinstance(passage, JoinPassage), "parts of other places are refused before a forward"
        changes = [self._change(child, passage) for child in self.children if child.concerns(passage.parts)]
        # What the last one read is the query, as those who published fusions trained them.
        mixed: Tensor = passage.fusions[self.name](changes[-1].given, torch.stack([one.change for one in changes], 2))
        return passage.become((changes[-1].onto + mixed,))

    def _change(self, child: Flow, passage: JoinPassage) -> Change:
        """Of one part; of a stack the last one's, which read what those before it made."""
        names = [one.name for one in _singles(child) if one.name in passage.parts]
        for name in names[:-1]:
            passage = cast(JoinPassage, passage.through(name))
        return passage.change(names[-1])


def _singles(flow: Flow) -> list[One]:
    if isinstance(flow, One):
        return [flow]
    assert isinstance(flow, InOrder), "only single parts and stacks of them are fused"
    return [one for child in flow.children for one in _singles(child)]
