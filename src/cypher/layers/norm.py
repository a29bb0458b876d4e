"""RMS norm (Zhang and Sennrich 2019, arXiv 1910.07467, equation 4)."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class RmsNorm(nn.Module):
    """``gain · values / root mean square of values``, the mean in fp32.

    Args:
        width: Of the last dim.
        epsilon: Added to the mean square.
    """

    def __init__(self, width: int, *, epsilon: float = 1e-5) -> None:
        super().__init__()
        self.epsilon = epsilon
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, values: Tensor) -> Tensor:
        """``(…, width)`` in and out, in the dtype of ``values``."""
        wide = values.float()
        normed = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.epsilon)
        return self.weight.to(values.dtype) * normed.to(values.dtype)
