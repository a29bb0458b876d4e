"""Sites: the places of a block where something can be plugged in without changing the block."""

from __future__ import annotations

from typing import Literal, cast

from torch import Tensor, nn

from cypher.layers.passages import (
    EmbeddingPassage,
    InversePassage,
    JoinPassage,
    KeyValuePassage,
    OutputPassage,
)
from cypher.layers.plugs import EmbeddingPlug
from cypher.layers.route import go_through


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
        self.fusions = nn.ModuleDict()

    def enter(self, hidden: Tensor) -> Tensor:
        """What the sub-layer reads, ``(batch, seq, width)``."""
        return cast(Tensor, self.norm(hidden)) if self.style == "pre" else hidden

    def forward(self, update: Tensor, residual: Tensor, source: Tensor) -> Tensor:
        """Join ``update`` to ``residual``; all ``(batch, seq, width)``, ``source`` is what :meth:`enter` gave."""
        update = self.dropout(update)
        if self.plugs:
            norm = self.norm if self.style == "post" else _NO_NORM
            (changed,) = go_through(
                JoinPassage(
                    parts=self.plugs,
                    changing=(update,),
                    constant=(residual, source),
                    norm=norm,
                    fusions=self.fusions,
                )
            )
            update = cast(Tensor, changed)
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
        if not self.plugs:
            return key, value, mask
        passage = KeyValuePassage(parts=self.plugs, changing=(key, value, mask), constant=(source,))
        return cast("tuple[Tensor, Tensor, Tensor | None]", go_through(passage))


class EmbeddingSite(nn.Module):
    """Where hidden states leave the embedding (``embedding_output``); empty it is the identity."""

    def __init__(self) -> None:
        super().__init__()
        self.plugs = nn.ModuleDict()

    def forward(self, hidden: Tensor, mask: Tensor, *, beginning: bool = True) -> tuple[Tensor, Tensor]:
        """Shapes as in :meth:`EmbeddingPlug.forward`; ``beginning`` is false where a state has tokens already."""
        # What is put in front of a text is in the state when more of it comes.
        at_work = {
            name: plug
            for name, plug in self.plugs.items()
            if beginning or not cast(EmbeddingPlug, plug).at_beginning_only
        }
        if not at_work:
            return hidden, mask
        passage = EmbeddingPassage(parts=at_work, changing=(hidden, mask))
        return cast(tuple[Tensor, Tensor], go_through(passage))

    def inverse(self, hidden: Tensor) -> Tensor:
        """Undo all plugs, the last one first, ``(batch, seq, width)``."""
        if not self.plugs:
            return hidden
        (changed,) = go_through(InversePassage(parts=self.plugs, changing=(hidden,)))
        return cast(Tensor, changed)


class OutputSite(nn.Module):
    """Where hidden states leave a block; empty it is the identity."""

    def __init__(self) -> None:
        super().__init__()
        self.plugs = nn.ModuleDict()

    def forward(self, hidden: Tensor, attention_mask: Tensor) -> Tensor:
        """Shapes as in :meth:`OutputPlug.forward`."""
        if not self.plugs:
            return hidden
        passage = OutputPassage(parts=self.plugs, changing=(hidden,), constant=(attention_mask,))
        (changed,) = go_through(passage)
        return cast(Tensor, changed)
