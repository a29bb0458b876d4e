"""What ``import cypher`` promises, and what it must not load."""

from __future__ import annotations

import subprocess
import sys

import pytest

import cypher

PROMISED = [
    "CypherError",
    "Document",
    "QuestionAnswering",
    "Recipe",
    "Span",
    "load",
    "resolve",
    "run_recipe",
]


@pytest.mark.parametrize("name", PROMISED)
def test_public_name_has_a_home_and_a_docstring(name: str) -> None:
    assert getattr(cypher, name).__doc__
    assert name in dir(cypher)


def test_import_loads_nothing_heavy() -> None:
    heavy = ("torch", "lancedb", "matplotlib", "numpy")
    code = f"import sys, cypher; print([name for name in {heavy} if name in sys.modules])"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == "[]"


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = cypher.nonsense
