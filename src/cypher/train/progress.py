"""What a run tells while it goes: lines of ``metrics.jsonl`` and calls to whoever watches."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Protocol

from cypher.files import write_text


class RunWatcher(Protocol):
    """Someone who watches a run (the command line's bar, a notebook)."""

    def started(self, *, total_steps: int, first_step: int) -> None:
        """Called once, before the first step.

        Args:
            total_steps: Of the whole run.
            first_step: Steps done in earlier sittings; 0 in a new run.
        """

    def stepped(self, *, step: int, loss: float, tokens_per_second: float) -> None:
        """Called after each step; ``step`` counts from 1.

        Args:
            step: Steps done.
            loss: Of this step.
            tokens_per_second: Without padding.
        """

    def evaluated(self, *, step: int, scores: dict[str, float], best: bool) -> None:
        """Called after each look at the development rows.

        Args:
            step: Steps done.
            scores: By metric.
            best: Whether these weights are the best so far.
        """


class Silence:
    """Nobody watches."""

    def started(self, *, total_steps: int, first_step: int) -> None:
        """Say nothing."""

    def stepped(self, *, step: int, loss: float, tokens_per_second: float) -> None:
        """Say nothing."""

    def evaluated(self, *, step: int, scores: dict[str, float], best: bool) -> None:
        """Say nothing."""


class MetricsFile:
    """``metrics.jsonl``: one JSON object a step or evaluation.

    Args:
        path: Of the file.
        steps: Lines of later ones are dropped: they will come again, and would stand twice.
        evaluated: Likewise of evaluations after this step.
    """

    def __init__(self, path: Path, *, steps: int, evaluated: int) -> None:
        self.path = path
        kept = [row for row in read_metrics(path) if row["step"] <= (evaluated if "scores" in row else steps)]
        write_text(path, "".join(json.dumps(row) + "\n" for row in kept))

    def write(self, row: dict[str, Any]) -> None:
        """Append one row."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")


class NoMetrics:
    """What a process has whose metrics another one writes."""

    def write(self, row: dict[str, Any]) -> None:
        """Leave it to the other."""


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """All whole rows of a metrics file; a last line cut off by a crash is left out."""
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").split("\n")
    return [json.loads(line) for line in lines[:-1] if line]
