"""Rotary positions (Su et al. 2021, arXiv 2104.09864, section 3.2.2), in the half-split form of Llama."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn


class RotaryTable(NamedTuple):
    """Cosines and sines of one batch's positions, each ``(batch, 1, seq, head_width)`` or broadcastable to it."""

    cosine: Tensor
    sine: Tensor

    def rotate(self, values: Tensor) -> Tensor:
        """Turn every pair of features by its token's angle, ``(batch, heads, seq, head_width)`` in and out."""
        first, second = values.chunk(2, dim=-1)
        turned = torch.cat([-second, first], dim=-1)
        return values * self.cosine.to(values.dtype) + turned * self.sine.to(values.dtype)

    def copied(self, copies: int) -> RotaryTable:
        """The table of as many copies of all rows, one below the other; one row for all stays one."""
        return self if len(self.cosine) == 1 else RotaryTable(*(torch.cat([table] * copies) for table in self))


class Rotary(nn.Module):
    """Angles from positions: ``position · base^(-2 i / head_width)`` for pair ``i``.

    Args:
        head_width: Of one head; even.
        base: The longest wavelength is near ``2 π · base`` tokens.
    """

    def __init__(self, head_width: int, *, base: float = 10_000.0) -> None:
        super().__init__()
        # A Python value, not a buffer: it is computed anew in fp32 wherever the model is, also from the meta device.
        self.head_width, self.base = head_width, base

    def forward(self, positions: Tensor) -> RotaryTable:
        """``(batch, seq)`` int64 to the table of these positions, fp32."""
        exponents = torch.arange(0, self.head_width, 2, dtype=torch.int64, device=positions.device).float()
        frequencies = 1.0 / self.base ** (exponents / self.head_width)
        angles = positions.float().unsqueeze(-1) * frequencies
        angles = torch.cat([angles, angles], dim=-1).unsqueeze(1)
        return RotaryTable(angles.cos(), angles.sin())
