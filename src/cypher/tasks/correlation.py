"""Correlation of two lists of numbers, and of their ranks."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def pearson(one: NDArray[Any], other: NDArray[Any]) -> float:
    """Pearson's correlation in [-1, 1]; 0 where one side does not vary, which tells nothing of the other.

    Args:
        one: ``(rows,)``.
        other: Likewise.
    """
    first, second = one - one.mean(), other - other.mean()
    spread = float(np.sqrt((first @ first) * (second @ second)))
    return float(first @ second) / spread if spread else 0.0


def spearman(one: NDArray[Any], other: NDArray[Any]) -> float:
    """Correlation of ranks, equals sharing the mean of theirs (Spearman 1904); arguments as in :func:`pearson`.

    Example:
        >>> spearman(np.array([1.0, 2.0, 3.0]), np.array([10.0, 20.0, 15.0]))
        0.5
    """
    return pearson(_ranks(one), _ranks(other))


def _ranks(values: NDArray[Any]) -> NDArray[np.float64]:
    _, place, count = np.unique(values, return_inverse=True, return_counts=True)
    ranks: NDArray[np.float64] = (np.cumsum(count) - (count - 1) / 2)[place]
    return ranks
