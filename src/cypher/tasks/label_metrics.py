"""How good labels are, equal to scikit-learn's figures, in percent."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Sequence


def single_label_scores(golds: Sequence[str], found: Sequence[str]) -> dict[str, float]:
    """Accuracy, F1 of the labels' mean and of all rows together, and Matthews' correlation.

    Args:
        golds: The right label of each row.
        found: The predicted one.

    Returns:
        ``accuracy, macro_f1, micro_f1, mcc``, times 100. ``macro_f1`` is over the labels that are right or predicted
        somewhere; ``mcc`` is that of several classes (Gorodkin 2004), 0 where all rows have one label.
    """
    n = len(golds)
    right = sum(gold == guess for gold, guess in zip(golds, found, strict=True))
    of_gold, of_found = Counter(golds), Counter(found)
    hits = Counter(gold for gold, guess in zip(golds, found, strict=True) if gold == guess)
    labels = set(of_gold) | set(of_found)
    macro = sum(_f1(hits[label], of_gold[label], of_found[label]) for label in labels) / len(labels)
    together = sum(of_gold[label] * of_found[label] for label in labels)
    spread = (n * n - sum(v * v for v in of_gold.values())) * (n * n - sum(v * v for v in of_found.values()))
    mcc = (right * n - together) / math.sqrt(spread) if spread else 0.0
    scores = {"accuracy": right / n, "macro_f1": macro, "micro_f1": right / n, "mcc": mcc}
    return {name: 100 * value for name, value in scores.items()}


def multi_label_scores(
    golds: Sequence[Collection[str]], found: Sequence[Collection[str]], *, labels: Sequence[str]
) -> dict[str, float]:
    """Exact rows, and F1 of the labels' mean and of all decisions together.

    Args:
        golds: The right labels of each row.
        found: The predicted ones.
        labels: Every label there is.

    Returns:
        ``accuracy`` (rows whose labels are all right), ``macro_f1``, ``micro_f1``, times 100.
    """
    exact = sum(set(gold) == set(guess) for gold, guess in zip(golds, found, strict=True))
    of_gold = Counter(label for gold in golds for label in gold)
    of_found = Counter(label for guess in found for label in guess)
    hits = Counter(label for gold, guess in zip(golds, found, strict=True) for label in set(gold) & set(guess))
    macro = sum(_f1(hits[label], of_gold[label], of_found[label]) for label in labels) / len(labels)
    micro = _f1(hits.total(), of_gold.total(), of_found.total())
    scores = {"accuracy": exact / len(golds), "macro_f1": macro, "micro_f1": micro}
    return {name: 100 * value for name, value in scores.items()}


def _f1(hits: int, golds: int, found: int) -> float:
    return 2 * hits / (golds + found) if golds + found else 0.0
