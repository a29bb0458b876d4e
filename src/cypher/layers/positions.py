"""Positions added to embeddings: sinusoids (Vaswani et al. 2017, arXiv 1706.03762, section 3.5) or learned vectors."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cypher.layers.embedding import Embedding


class SinusoidalPositions(nn.Module):
    """Sines in the first half of the features, cosines in the second, of wavelengths from 2 π to 20,000 π.

    Args:
        width: Of the vectors; even.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width

    def forward(self, positions: Tensor) -> Tensor:
        """``(batch, seq)`` int64 to ``(batch, seq, width)`` fp32."""
        exponents = torch.arange(0, self.width, 2, device=positions.device).float() / self.width
        angles = positions.float().unsqueeze(-1) / 10_000.0**exponents
        return torch.cat([angles.sin(), angles.cos()], dim=-1)


class LearnedPositions(nn.Module):
    """One learned vector a position.

    Args:
        max_positions: Tokens a row may have.
        width: Of the vectors.
        offset: Rows of the table before position 0.
    """

    def __init__(self, max_positions: int, width: int, *, offset: int = 0) -> None:
        super().__init__()
        self.offset = offset
        self.table = Embedding(max_positions + offset, width)

    def forward(self, positions: Tensor) -> Tensor:
        """``(batch, seq)`` int64 to ``(batch, seq, width)``."""
        vectors: Tensor = self.table(positions + self.offset)
        return vectors
