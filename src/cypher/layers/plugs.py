"""What can be put into a site: one contract a place, each a module with trained parameters of its own."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import NamedTuple

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
            norm: What norms the sum: the site's own norm, or the identity where blocks norm what they read.
        """

    def together(
        self, others: Sequence[JoinPlug], update: Tensor, residual: Tensor, source: Tensor, norm: nn.Module
    ) -> Tensor | None:
        """What this plug and others make of as many rows each, this one of the first, in one go.

        Args:
            others: In order of their rows.
            update: As in :meth:`forward`.
            residual: Likewise.
            source: Likewise.
            norm: Likewise.

        Returns:
            ``(batch, seq, width)``, or ``None`` where they differ in kind: then each is called with its rows.
        """
        return None


class Change(NamedTuple):
    """What a fusible plug read, what it makes of it, and what that is added to; all ``(batch, seq, width)``."""

    given: Tensor
    change: Tensor
    onto: Tensor


class FusiblePlug(JoinPlug):
    """A join plug whose change can be had alone, so that several can be weighed against each other."""

    @abstractmethod
    def change(self, update: Tensor, residual: Tensor, source: Tensor, norm: nn.Module) -> Change:
        """What the plug read and its change; arguments as in :meth:`JoinPlug.forward`."""

    def forward(self, update: Tensor, residual: Tensor, source: Tensor, norm: nn.Module) -> Tensor:
        """What the plug's change is added to, with it."""
        _, change, onto = self.change(update, residual, source, norm)
        return onto + change


class KeyValuePlug(nn.Module, ABC):
    """What changes or extends the keys and values of an attention (prefix tuning and its kin).

    Attributes:
        heads: Which of the attention's key and value heads it is given; all of them unless the attention is divided.
    """

    heads: slice = slice(None)

    @abstractmethod
    def forward(
        self, key: Tensor, value: Tensor, mask: Tensor | None, source: Tensor
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return the first three, possibly with leading rows that no position encoding touches.

        A state has the keys and values without these rows: they are put in front anew in every step.

        Args:
            key: ``(batch, key_value_heads, keys, head_width)``, of all steps up to now.
            value: Likewise.
            mask: Bool, broadcastable to ``(batch, heads, queries, keys)``; ``None`` keeps all.
            source: ``(batch, queries, width)``, the hidden states that the attention read.
        """


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


class OutputPlug(nn.Module, ABC):
    """What changes the hidden states that leave a block (representation fine-tuning)."""

    @abstractmethod
    def forward(self, hidden: Tensor, attention_mask: Tensor) -> Tensor:
        """Return the hidden states to go on with.

        Args:
            hidden: ``(batch, seq, width)``.
            attention_mask: ``(batch, seen)`` bool, True = keep: all tokens of the row up to now, of which ``hidden``
                has the last ``seq``; more than these only where a state has earlier ones.
        """
