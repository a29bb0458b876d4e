"""How well a ranking finds what is right: recall, mean reciprocal rank."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

RECALL_AT = (1, 5, 10)


def ranks_of(
    similarities: NDArray[Any], golds: Sequence[int], *, also_right: Sequence[Collection[int]]
) -> NDArray[np.int64]:
    """Place of each query's candidate, counted from 1; of equals it comes last, so that a constant finds nothing.

    Args:
        similarities: ``(queries, candidates)``.
        golds: Each query's candidate.
        also_right: Candidates that do not count against it.

    Example:
        >>> ranks_of(np.array([[0.1, 0.9, 0.5]]), [2], also_right=[{2}]).tolist()
        [2]
    """
    ranks = np.empty(len(golds), dtype=np.int64)
    for query, gold in enumerate(golds):
        above = similarities[query] >= similarities[query, gold]
        above[list({gold, *also_right[query]})] = False
        ranks[query] = 1 + above.sum()
    return ranks


def retrieval_scores(ranks: NDArray[np.int64]) -> dict[str, float]:
    """``recall@k`` and ``mrr`` in percent.

    Example:
        >>> retrieval_scores(np.array([1, 2]))
        {'recall@1': 50.0, 'recall@5': 100.0, 'recall@10': 100.0, 'mrr': 75.0}
    """
    scores = {f"recall@{k}": 100 * float((ranks <= k).mean()) for k in RECALL_AT}
    return {**scores, "mrr": 100 * float((1 / ranks).mean())}
