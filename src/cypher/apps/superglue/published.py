"""Rows of the leaderboard to stand beside ours, in percent, each with its source.

As of 9 February 2022 in Vu et al. 2022 (SPoT, arXiv 2110.07904, table 5).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from cypher.apps.superglue.benchmark import SCORED, TASKS

SOURCE = "SuperGLUE leaderboard of 2022-02-09, test set (arXiv 2110.07904, table 5)"


@dataclass(frozen=True, kw_only=True)
class Published:
    """One system of the leaderboard.

    Args:
        name: As it is known.
        score: The mean that the leaderboard gives, in percent.
        metrics: Key of a task → its metrics by name, in percent.
        source: Where the figures stand.
    """

    name: str
    score: float
    metrics: Mapping[str, Mapping[str, float]]
    source: str = SOURCE


def _published(name: str, score: float, *figures: str) -> Published:
    """A row as it is printed, tasks in the order of the leaderboard, two metrics divided by a slash."""
    metrics = {
        key: dict(zip(TASKS[key].metrics, (float(part) for part in text.split("/")), strict=True))
        for key, text in zip(SCORED, figures, strict=True)
    }
    return Published(name=name, score=score, metrics=metrics)


PUBLISHED = (
    _published("ERNIE 3.0 12B", 90.6, "91.0", "98.6/99.2", "97.4", "88.6/63.2", "94.7/94.2", "92.6", "77.4", "97.3"),
    _published("DeBERTa 3.1B", 90.3, "90.4", "95.7/97.6", "98.4", "88.2/63.7", "94.5/94.1", "93.2", "77.5", "95.9"),
    _published("human", 89.8, "89.0", "95.8/98.9", "100", "81.8/51.9", "91.7/91.3", "93.6", "80.0", "100"),
    _published("T5-11B", 89.3, "91.2", "93.9/96.8", "94.8", "88.1/63.3", "94.1/93.4", "92.5", "76.9", "93.8"),
    _published("CBOW", 44.5, "62.2", "49.0/71.2", "51.6", "0.0/0.5", "14.0/13.6", "49.7", "53.1", "65.1"),
)
"""From the best to the simplest."""
