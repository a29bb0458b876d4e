"""The one loss rule: a loss is a sum and the number of its terms, divided only when both are known everywhere."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class TokenSum:
    """A loss before its division.

    A mean over a micro-batch, averaged again over micro-batches or ranks, weighs rows by the company they keep.
    So nothing divides before the step's *global* count is known: over ranks, micro-batches and accumulation.

    Args:
        total: Scalar sum of all terms, with its gradient.
        count: How many terms were summed (tokens, rows).
        weight: Factor of this loss in the whole.
    """

    total: Tensor
    count: int
    weight: float = 1.0


Losses: TypeAlias = Mapping[str, TokenSum]
"""Losses by name; the step adds ``weight · total / global count`` over all of them."""
