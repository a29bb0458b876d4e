"""Compositions: trees of adapter names that say how several adapters work together.

After AdapterHub (Pfeiffer et al. 2020, arXiv 2007.07779) and its library (Poth et al. 2023, arXiv 2311.11077,
section 4, table 1 of which says what may stand in what).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, Union

from cypher.errors import ConfigError
from cypher.layers.flows import ByRows, ByTask, ByTokens, Fused, InOrder, Mean, One
from cypher.layers.route import Flow

Tree = Union[str, "Composition"]
"""A name, or a composition of trees."""


class Composition(ABC):
    """Several adapters, or compositions of them.

    Args:
        children: Names and compositions, in order.

    Raises:
        ConfigError: There are too few, one may not stand in this composition, or a name comes twice.

    Example:
        >>> tree = Stack("language", Fuse("news", "reviews"))
        >>> tree
        Stack('language', Fuse('news', 'reviews'))
        >>> list(tree.names())
        ['language', 'news', 'reviews']
    """

    least: ClassVar[int] = 2
    # Names of what may stand inside, besides single adapters.
    allowed: ClassVar[tuple[str, ...]] = ()

    def __init__(self, *children: Tree) -> None:
        self.children = children
        kind = type(self).__name__
        if len(children) < self.least:
            raise ConfigError(f"{kind} of {len(children)}", needed=f"at least {self.least} adapters")
        for child in children:
            if not isinstance(child, str) and type(child).__name__ not in self.allowed:
                raise ConfigError(
                    f"{type(child).__name__} inside {kind}",
                    needed=f"adapters{''.join(f', {name}' for name in self.allowed)}",
                )
        twice = sorted(name for name in set(self.names()) if list(self.names()).count(name) > 1)
        if twice:
            raise ConfigError(f"{twice[0]!r} twice in one composition", change="attach it under a second name")

    def names(self) -> Iterator[str]:
        """All adapters, from left to right."""
        for child in self.children:
            yield from names_of(child)

    @abstractmethod
    def flow(self) -> Flow:
        """How a place goes through it."""

    def options(self) -> dict[str, Any]:
        """What it is told besides its children, as its keyword arguments."""
        return {}

    def __repr__(self) -> str:
        shown = [*map(repr, self.children), *(f"{name}={value!r}" for name, value in self.options().items())]
        return f"{type(self).__name__}({', '.join(shown)})"

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and repr(self) == repr(other)

    def __hash__(self) -> int:
        return hash(repr(self))

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; :func:`from_dict` gives an equal tree back."""
        children = [child if isinstance(child, str) else child.to_dict() for child in self.children]
        return {"type": type(self).__name__, "children": children, **self.options()}


class Stack(Composition):
    """One after the other: what one adapter makes is what the next is given."""

    least = 1
    allowed = ("Fuse", "Split", "Parallel", "BatchSplit", "Average", "MultiTask")

    def flow(self) -> Flow:
        """In order."""
        return InOrder([flow_of(child) for child in self.children])


class Fuse(Composition):
    """AdapterFusion (Pfeiffer et al. 2021, arXiv 2005.00247, section 3.2): attention over what the adapters add.

    Its own weights are made by :func:`cypher.adapters.fusion.add_fusion`.
    """

    allowed = ("Stack",)

    @property
    def name(self) -> str:
        """Of the fusion: the adapters', with commas between them."""
        return ",".join(self.names())

    def flow(self) -> Flow:
        """Fused."""
        return Fused([_fusible(child) for child in self.children], self.name)


class Split(Composition):
    """Each adapter gets a stretch of every row's tokens.

    Args:
        children: In order of the tokens.
        splits: Tokens of each; the last one takes all that are left, however many it says.
    """

    allowed = ("Split", "Stack", "BatchSplit", "Average")

    def __init__(self, *children: Tree, splits: Sequence[int]) -> None:
        super().__init__(*children)
        self.splits = tuple(splits)
        _check_sizes(self, "splits", self.splits)

    def options(self) -> dict[str, Any]:
        """The splits."""
        return {"splits": list(self.splits)}

    def flow(self) -> Flow:
        """By tokens."""
        return ByTokens([flow_of(child) for child in self.children], self.splits)


class BatchSplit(Composition):
    """Each adapter gets rows of the batch of its own.

    Args:
        children: In order of the rows.
        batch_sizes: Rows of each.
    """

    allowed = ("Stack", "Split", "BatchSplit", "Average")

    def __init__(self, *children: Tree, batch_sizes: Sequence[int]) -> None:
        super().__init__(*children)
        self.batch_sizes = tuple(batch_sizes)
        _check_sizes(self, "batch_sizes", self.batch_sizes)

    def options(self) -> dict[str, Any]:
        """The sizes."""
        return {"batch_sizes": list(self.batch_sizes)}

    def flow(self) -> Flow:
        """By rows."""
        return ByRows([flow_of(child) for child in self.children], self.batch_sizes)


class MultiTask(Composition):
    """Each row says which adapter serves it, by ``Inputs.adapter_ids``: the number of a child."""

    allowed = ("Stack", "Average", "Fuse")

    def flow(self) -> Flow:
        """By task."""
        return ByTask([flow_of(child) for child in self.children])


class Parallel(Composition):
    """Every adapter gets all rows; what comes before the first place where they differ runs once.

    The model returns each row once a child: ``Encoded.row_of`` says of which input row, all of the first child first.
    """

    allowed = ("Stack", "BatchSplit", "Average")

    def flow(self) -> Flow:
        """By rows, of which the model has made a copy for each."""
        return ByRows([flow_of(child) for child in self.children])


class Average(Composition):
    """The weighted sum of what the adapters make.

    Args:
        children: All given the same.
        weights: One each; ``None`` weighs all the same.
        normalise_weights: Whether they are divided by their sum.
    """

    allowed = ("Stack", "Split", "BatchSplit")

    def __init__(self, *children: Tree, weights: Sequence[float] | None = None, normalise_weights: bool = True) -> None:
        super().__init__(*children)
        weights = [1.0] * len(children) if weights is None else list(weights)
        if len(weights) != len(children):
            raise ConfigError(f"Average of {len(children)} with {len(weights)} weights", needed="one weight each")
        total = sum(weights) if normalise_weights else 1.0
        if not total:
            raise ConfigError(f"Average with weights {weights}", needed="weights with a sum that is not 0")
        self.weights = tuple(weight / total for weight in weights)

    def options(self) -> dict[str, Any]:
        """The weights."""
        return {"weights": list(self.weights), "normalise_weights": False}

    def flow(self) -> Flow:
        """Averaged."""
        return Mean([flow_of(child) for child in self.children], self.weights)


_KINDS: dict[str, type[Composition]] = {
    kind.__name__: kind for kind in (Stack, Fuse, Split, BatchSplit, MultiTask, Parallel, Average)
}


def names_of(tree: Tree) -> Iterator[str]:
    """All adapters of a tree, from left to right."""
    if isinstance(tree, str):
        yield tree
    else:
        yield from tree.names()


def compositions_of(tree: Tree) -> Iterator[Composition]:
    """A composition and all inside it."""
    if isinstance(tree, Composition):
        yield tree
        for child in tree.children:
            yield from compositions_of(child)


def flow_of(tree: Tree) -> Flow:
    """How a place goes through a tree."""
    return One(tree) if isinstance(tree, str) else tree.flow()


def from_dict(values: str | dict[str, Any]) -> Tree:
    """The tree that :meth:`Composition.to_dict` wrote.

    Raises:
        ConfigError: It is none.
    """
    if isinstance(values, str):
        return values
    options = dict(values)
    kind, children = options.pop("type", None), options.pop("children", None)
    if kind not in _KINDS or not isinstance(children, list):
        raise ConfigError(f"composition {values}", needed=f"a type ({', '.join(_KINDS)}) and its children")
    try:
        return _KINDS[kind](*map(from_dict, children), **options)
    except TypeError as error:
        raise ConfigError(f"{kind} with {', '.join(options) or 'no options'} ({error})") from None


def _fusible(tree: Tree) -> One | InOrder:
    flow = flow_of(tree)
    assert isinstance(flow, (One, InOrder)), "Fuse allows nothing else inside"
    if isinstance(flow, InOrder) and not all(isinstance(child, One) for child in flow.children):
        raise ConfigError(f"{tree!r} inside Fuse", needed="a stack of single adapters")
    return flow


def _check_sizes(composition: Composition, name: str, sizes: Sequence[int]) -> None:
    if len(sizes) != len(composition.children) or any(size < 1 for size in sizes):
        raise ConfigError(
            f"{type(composition).__name__} of {len(composition.children)} with {name} = {list(sizes)}",
            needed="one size of at least 1 each",
        )
