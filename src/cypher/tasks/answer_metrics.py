"""Exact match and F1 of answer texts (Rajpurkar et al. 2016, arXiv 1606.05250, section 5)."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalise_answer(text: str) -> str:
    """Lower-case, without punctuation, English articles and extra white space."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_NO_PUNCTUATION)).split())


def exact_match(prediction: str, golds: Sequence[str]) -> float:
    """1.0 if the prediction equals a gold answer after normalisation; no golds means that nothing is right.

    Args:
        prediction: Text; empty for "no answer".
        golds: Right answers; none means "no answer" is right.

    Example:
        >>> exact_match("The Eiffel Tower!", ["eiffel tower"])
        1.0
    """
    return float(normalise_answer(prediction) in {normalise_answer(gold) for gold in golds or [""]})


def token_f1(prediction: str, golds: Sequence[str]) -> float:
    """Largest F1 of the bags of words over the gold answers; an empty text only matches an empty one.

    Args:
        prediction: Text; empty for "no answer".
        golds: Right answers; the best of them counts.

    Example:
        >>> round(token_f1("in the red house", ["red house", "a barn"]), 3)
        0.8
    """
    given = normalise_answer(prediction).split()
    return max(_bag_f1(given, normalise_answer(gold).split()) for gold in golds or [""])


def _bag_f1(given: list[str], gold: list[str]) -> float:
    if not given or not gold:
        return float(given == gold)
    shared = sum((Counter(given) & Counter(gold)).values())
    return 2 * shared / (len(given) + len(gold))
