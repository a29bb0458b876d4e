"""Sites: the places of a block where something can be plugged in without changing the block."""

from __future__ import annotations

from typing import Literal, cast

from torch import Tensor, nn

from cypher.layers.plugs import EmbeddingPlug


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
            update = plug(update, residual, source, self.norm if self.style == "post" else _NO_NORM)
        joined = residual + update
        return cast(Tensor, self.norm(joined)) if self.style == "post" else joined


_NO_NORM = nn.Identity()


class KeyValueSite(nn.Module):
    """Where keys and values pass on their way into an attention; empty it is the identity."""

    def __init__(self) -> None:
        super().__init__()
        self.plugs = nn.ModuleDict()

    def forward(
        self, key: Tensor, value: Tensor, mask: Tensor | None, source: Tensor
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Shapes as in :meth:`KeyValuePlug.forward`."""
        for plug in self.plugs.values():
            key, value, mask = plug(key, value, mask, source)
        return key, value, mask


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


class OutputSite(nn.Module):
    """Where hidden states leave a block; empty it is the identity."""

    def __init__(self) -> None:
        super().__init__()
        self.plugs = nn.ModuleDict()

    def forward(self, hidden: Tensor, attention_mask: Tensor) -> Tensor:
        """Shapes as in :meth:`OutputPlug.forward`."""
        for plug in self.plugs.values():
            hidden = plug(hidden, attention_mask)
        return hidden
