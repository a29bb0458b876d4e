"""Embedding that costs nothing to build before its weights are known."""

from __future__ import annotations

from torch import nn


class Embedding(nn.Embedding):
    """``nn.Embedding``, drawn at random only where there is memory to draw into.

    On the meta device drawing has no effect, but imports torch's compiler, which takes longer than to load a model.
    """

    def reset_parameters(self) -> None:
        """Draw from a normal distribution; on the meta device leave it."""
        if not self.weight.is_meta:
            super().reset_parameters()
