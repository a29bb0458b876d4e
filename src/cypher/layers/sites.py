"""Sites: the places of a block where something can be plugged in without changing the block."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Literal, cast

from torch import Tensor, nn


class JoinPlug(nn.Module, ABC):
    """What changes a sub-layer's update before it joins the stream (bottleneck adapters and their kin)."""

    @abstractmethod
    def forward(self, update: Tensor, residual: Tensor, source: Tensor, norm: nn.Module) -> Tensor:
        """Return the update to join with instead.

        Args:
            update: ``(batch, seq, width)``, what the sub-layer made, or the plug before this one.
            residual: ``(batch, seq, width)``, what it will be added to.
            source: ``(batch, seq, width)``, what the sub-layer was given.
            norm: The site's own norm.
        """


class JoinSite(nn.Module):
    """Where a sub-layer's update joins the stream; owns the residual addition, its norm and its dropout.

    Empty it is ``norm(residual + update)`` (``post``) or ``residual + update`` (``pre``, where :meth:`enter`
    norms what the sub-layer reads).

    Args:
        norm: The sub-layer's norm.
        style: ``post`` (Vaswani et al. 2017) or ``pre``.
        dropout: Share of the update set to zero in training.
    """

    def __init__(self, norm: nn.Module, *, style: Literal["post", "pre"] = "post", dropout: float = 0.0) -> None:
        super().__init__()
        self.norm = norm
        self.style = style
        self.dropout = nn.Dropout(dropout)
        self.plugs = nn.ModuleDict()

    def enter(self, hidden: Tensor) -> Tensor:
        """What the sub-layer reads, ``(batch, seq, width)``."""
        return cast(Tensor, self.norm(hidden)) if self.style == "pre" else hidden

    def forward(self, update: Tensor, residual: Tensor, source: Tensor) -> Tensor:
        """Join ``update`` to ``residual``; all ``(batch, seq, width)``, ``source`` is what :meth:`enter` gave."""
        update = self.dropout(update)
        for plug in self.plugs.values():
            update = plug(update, residual, source, self.norm)
        joined = residual + update
        return cast(Tensor, self.norm(joined)) if self.style == "post" else joined


class KeyValuePlug(nn.Module, ABC):
    """What changes or extends the keys and values of an attention (prefix tuning and its kin)."""

    @abstractmethod
    def forward(self, key: Tensor, value: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return the same three, possibly with leading rows that no position encoding touches.

        Args:
            key: ``(batch, heads, keys, head_width)``.
            value: ``(batch, heads, keys, head_width)``.
            mask: Bool, broadcastable to ``(batch, heads, queries, keys)``; ``None`` keeps all.
        """


class KeyValueSite(nn.Module):
    """Where keys and values pass on their way into an attention; empty it is the identity."""

    def __init__(self) -> None:
        super().__init__()
        self.plugs = nn.ModuleDict()

    def forward(self, key: Tensor, value: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
        """Shapes as in :meth:`KeyValuePlug.forward`."""
        for plug in self.plugs.values():
            key, value, mask = plug(key, value, mask)
        return key, value, mask


class EmbeddingPlug(nn.Module, ABC):
    """What changes hidden states where they leave the embedding (invertible adapters, prompts).

    Attributes:
        at_beginning_only: Whether later steps of a generation, which go on with a state, leave it out.
    """

    at_beginning_only = False

    @abstractmethod
    def forward(self, hidden: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Return both, possibly with rows in front that are no tokens of the input.

        Args:
            hidden: ``(batch, seq, width)``.
            mask: ``(batch, seq)`` bool, True = keep.
        """

    def inverse(self, hidden: Tensor) -> Tensor:
        """Undo the change before a language head that is tied to the embedding, ``(batch, seq, width)``."""
        return hidden


class EmbeddingSite(nn.Module):
    """Where hidden states leave the embedding (``embedding_output``); empty it is the identity."""

    def __init__(self) -> None:
        super().__init__()
        self.plugs = nn.ModuleDict()

    def forward(self, hidden: Tensor, mask: Tensor, *, beginning: bool = True) -> tuple[Tensor, Tensor]:
        """Shapes as in :meth:`EmbeddingPlug.forward`; ``beginning`` is false where a state has tokens already."""
        for plug in self.plugs.values():
            if beginning or not plug.at_beginning_only:
                hidden, mask = plug(hidden, mask)
        return hidden, mask

    def inverse(self, hidden: Tensor) -> Tensor:
        """Undo all plugs, the last one first, ``(batch, seq, width)``."""
        for plug in reversed(list(self.plugs.values())):
            hidden = cast(EmbeddingPlug, plug).inverse(hidden)
        return hidden
