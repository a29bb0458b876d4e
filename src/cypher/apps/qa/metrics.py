"""How well retrieval does: from the ranks of what is relevant (Manning, Raghavan and Schütze 2008, chapter 8).

A rank counts from 1; ``None`` means that nothing relevant was found.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence


def first_rank(found: Sequence[str], relevant: Collection[str]) -> int | None:
    """Rank of the first relevant item.

    Args:
        found: Ids, best first. Several passages of one document may stand for it: each takes a rank.
        relevant: Ids that would be right.

    Example:
        >>> first_rank(["b", "a"], {"a"}), first_rank(["b"], {"a"})
        (2, None)
    """
    return next((rank for rank, item in enumerate(found, start=1) if item in relevant), None)


def recall_at(ranks: Sequence[int | None], k: int) -> float:
    """Share of the questions with something relevant among their first ``k``, in [0, 1]; 0.0 without questions.

    Example:
        >>> recall_at([1, 4, None, 2], 2)
        0.5
    """
    return sum(rank is not None and rank <= k for rank in ranks) / max(1, len(ranks))


def mean_reciprocal_rank(ranks: Sequence[int | None]) -> float:
    """Mean of ``1 / rank``, 0 where nothing was found; 0.0 without questions.

    Example:
        >>> mean_reciprocal_rank([1, 2, None, 4])
        0.4375
    """
    return sum(0.0 if rank is None else 1 / rank for rank in ranks) / max(1, len(ranks))


def ndcg_at(found: Sequence[str], grades: Mapping[str, float], k: int) -> float:
    """Discounted gain of the first ``k`` over that of the best order, gain = grade, in [0, 1].

    Järvelin and Kekäläinen 2002 with the discount ``1 / log2(rank + 1)``, as in trec_eval's ``ndcg_cut``. A grade
    below 0 gains nothing; without any positive grade the result is 0.0.

    Args:
        found: Ids, best first, each once.
        grades: Id → grade; what has none is not relevant.
        k: Ranks that count.

    Example:
        >>> round(ndcg_at(["x", "a", "b"], {"a": 1, "b": 3}, 10), 4)
        0.5869
    """
    gained = _discounted([max(0.0, grades.get(item, 0.0)) for item in found[:k]])
    best = _discounted(sorted((max(0.0, grade) for grade in grades.values()), reverse=True)[:k])
    return gained / best if best else 0.0


def _discounted(gains: Sequence[float]) -> float:
    return sum(gain / math.log2(rank + 1) for rank, gain in enumerate(gains, start=1))
