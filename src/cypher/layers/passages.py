"""What each kind of place is given, and how its parts are called."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cypher.layers.plugs import Change, EmbeddingPlug, FusiblePlug, JoinPlug, KeyValuePlug, OutputPlug
from cypher.layers.route import Passage, Tensors

if TYPE_CHECKING:
    from cypher.layers.linear import Delta


@dataclass(frozen=True, kw_only=True)
class EnterPassage(Passage):
    """``changing`` is what a linear layer is given, ``(batch, seq, in_features)``; the last delta enters first.

    Args:
        given: Filled with what each delta was given, by its name, for :class:`DeltaPassage`.
    """

    token_dim: ClassVar[int | None] = 1
    backwards: ClassVar[bool] = True

    given: dict[str, Tensor]

    def call(self, name: str) -> Tensors:
        """What the layer, and the deltas before this one, are given."""
        (values,) = self.changing
        self.given[name] = cast(Tensor, values)
        return (cast("Delta", self.parts[name]).enter(cast(Tensor, values)),)


@dataclass(frozen=True, kw_only=True)
class DeltaPassage(Passage):
    """``changing`` is a linear layer's output, ``constant`` what it was given; both ``(batch, seq, features)``.

    Args:
        given: What a delta is given where that is something else than the layer.
    """

    token_dim: ClassVar[int | None] = 1

    given: dict[str, Tensor]

    def call(self, name: str) -> Tensors:
        """The output with a delta's change."""
        values = self.given.get(name, self.constant[0])
        return (self.parts[name](values, self.changing[0]),)


@dataclass(frozen=True, kw_only=True)
class JoinPassage(Passage):
    """``changing`` is an update, ``constant`` its residual and source; all ``(batch, seq, width)``.

    Args:
        norm: As :class:`~cypher.layers.plugs.JoinPlug` gets it.
        fusions: Attention over several plugs, by their joined names.
    """

    token_dim: ClassVar[int | None] = 1

    norm: nn.Module
    fusions: nn.ModuleDict

    def call(self, name: str) -> Tensors:
        """The update that a plug makes."""
        return (cast(JoinPlug, self.parts[name])(*self.changing, *self.constant, self.norm),)

    def together(self, names: Sequence[str]) -> JoinPassage | None:
        """As the first plug knows it."""
        if any(name not in self.parts for name in names):
            return None
        first, *others = (cast(JoinPlug, self.parts[name]) for name in names)
        update, (residual, source) = cast(Tensor, self.changing[0]), self.constant
        assert residual is not None and source is not None  # noqa: PT018
        changed = first.together(others, update, residual, source, self.norm)
        return None if changed is None else replace(self, changing=(changed,))

    def change(self, name: str) -> Change:
        """What a fusible plug reads and adds."""
        (update,), (residual, source) = self.changing, self.constant
        assert update is not None and residual is not None and source is not None  # noqa: PT018
        return cast(FusiblePlug, self.parts[name]).change(update, residual, source, self.norm)


@dataclass(frozen=True, kw_only=True)
class KeyValuePassage(Passage):
    """``changing`` is key, value and mask, ``constant`` what the attention read."""

    def call(self, name: str) -> Tensors:
        """Key, value and mask with a plug's rows in front."""
        key, value, mask = self.changing
        return cast(Tensors, cast(KeyValuePlug, self.parts[name])(key, value, mask, self.constant[0]))

    def join_rows(self, changed: Sequence[Tensors]) -> Tensors:
        """Rows with fewer keys get some in front that no query sees."""
        keys = [cast(Tensor, key) for key, _, _ in changed]
        values = [cast(Tensor, value) for _, value, _ in changed]
        longest = max(key.shape[2] for key in keys)
        if all(mask is None for _, _, mask in changed) and all(key.shape[2] == longest for key in keys):
            return torch.cat(keys), torch.cat(values), None
        masks = [
            key.new_ones(len(key), 1, 1, key.shape[2], dtype=torch.bool) if mask is None else mask
            for key, (_, _, mask) in zip(keys, changed, strict=True)
        ]
        queries = max(mask.shape[2] for mask in masks)
        missing = [longest - key.shape[2] for key in keys]
        return (
            torch.cat([F.pad(key, (0, 0, few, 0)) for key, few in zip(keys, missing, strict=True)]),
            torch.cat([F.pad(value, (0, 0, few, 0)) for value, few in zip(values, missing, strict=True)]),
            torch.cat(
                [
                    F.pad(mask.expand(len(key), 1, queries, -1), (few, 0))
                    for key, mask, few in zip(keys, masks, missing, strict=True)
                ]
            ),
        )


@dataclass(frozen=True, kw_only=True)
class EmbeddingPassage(Passage):
    """``changing`` is the hidden states ``(batch, seq, width)`` and their mask ``(batch, seq)``."""

    def call(self, name: str) -> Tensors:
        """Both, with a plug's rows in front."""
        return cast(Tensors, cast(EmbeddingPlug, self.parts[name])(*self.changing))

    def join_rows(self, changed: Sequence[Tensors]) -> Tensors:
        """Rows with fewer tokens get padding in front."""
        longest = max(cast(Tensor, mask).shape[1] for _, mask in changed)
        hidden, masks = [], []
        for states, mask in changed:
            assert states is not None and mask is not None  # noqa: PT018
            few = longest - mask.shape[1]
            hidden.append(F.pad(states, (0, 0, few, 0)))
            masks.append(F.pad(mask, (few, 0)))
        return torch.cat(hidden), torch.cat(masks)


@dataclass(frozen=True, kw_only=True)
class InversePassage(Passage):
    """``changing`` is the hidden states before a language head that is tied to the embedding."""

    backwards: ClassVar[bool] = True

    def call(self, name: str) -> Tensors:
        """The hidden states without the change that a plug made behind the embedding."""
        return (cast(EmbeddingPlug, self.parts[name]).inverse(cast(Tensor, self.changing[0])),)


@dataclass(frozen=True, kw_only=True)
class OutputPassage(Passage):
    """``changing`` is a block's hidden states, ``constant`` the mask of all tokens up to now."""

    def call(self, name: str) -> Tensors:
        """The hidden states that a plug makes."""
        return (cast(OutputPlug, self.parts[name])(self.changing[0], self.constant[0]),)
