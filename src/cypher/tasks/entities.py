"""Entities marked by BIO tags, and how many were found, by the definition of CoNLL's evaluation.

An entity begins at ``B-``, and also at ``I-`` behind ``O`` or another type; it is right when its type and both ends
are (Tjong Kim Sang and De Meulder 2003, arXiv cs/0306050, section 3).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class Entity(NamedTuple):
    """Words ``[start, end)`` of a row."""

    type: str
    start: int
    end: int


def entities(tags: Sequence[str]) -> list[Entity]:
    """The entities of one row, in order.

    Example:
        >>> [tuple(entity) for entity in entities(["B-PER", "I-PER", "O", "I-LOC", "B-LOC"])]
        [('PER', 0, 2), ('LOC', 3, 4), ('LOC', 4, 5)]
    """
    found: list[Entity] = []
    start, kind = 0, ""
    for place, tag in enumerate((*tags, "O")):
        prefix, _, own = tag.partition("-")
        goes_on = prefix == "I" and kind == own
        if kind and not goes_on:
            found.append(Entity(kind, start, place))
            kind = ""
        if prefix in ("B", "I") and not goes_on:
            start, kind = place, own
    return found


def entity_scores(golds: Sequence[Sequence[str]], found: Sequence[Sequence[str]]) -> dict[str, float]:
    """``f1, precision, recall`` of all entities of all rows together, in percent; 0 where there are none."""
    hits = n_golds = n_found = 0
    for gold, guess in zip(golds, found, strict=True):
        right, given = set(entities(gold)), set(entities(guess))
        hits, n_golds, n_found = hits + len(right & given), n_golds + len(right), n_found + len(given)
    return {
        "f1": 200 * hits / (n_golds + n_found) if n_golds + n_found else 0.0,
        "precision": 100 * hits / n_found if n_found else 0.0,
        "recall": 100 * hits / n_golds if n_golds else 0.0,
    }
