"""Exact match and F1 against values worked out by the official definition."""

from __future__ import annotations

import pytest

from cypher.tasks.answer_metrics import exact_match, token_f1


@pytest.mark.parametrize(
    ("prediction", "golds", "exact", "f1"),
    [
        ("The Eiffel Tower!", ["eiffel tower"], 1.0, 1.0),
        ("in the red house", ["red house", "a barn"], 0.0, 0.8),
        ("", [], 1.0, 1.0),
        ("something", [], 0.0, 0.0),
        ("", ["gold"], 0.0, 0.0),
        ("the", ["a"], 1.0, 1.0),
        ("b b c", ["b c c"], 0.0, 2 / 3),
        ("1,000 km", ["1000 km"], 1.0, 1.0),
        ("Beyoncé", ["beyoncé"], 1.0, 1.0),
    ],
)
def test_goldens(prediction: str, golds: list[str], exact: float, f1: float) -> None:
    assert exact_match(prediction, golds) == exact
    assert token_f1(prediction, golds) == pytest.approx(f1)
