"""NLP techniques as parts that fit together; importing this loads no torch.

Example:
    >>> import cypher
    >>> cypher.Document(text="Paris is in France.").page_at(0) is None
    True
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cypher.apps.qa import QuestionAnswering as QuestionAnswering
    from cypher.config import Recipe as Recipe
    from cypher.documents import Document as Document
    from cypher.documents import Span as Span
    from cypher.errors import CypherError as CypherError
    from cypher.hub import resolve as resolve
    from cypher.models.load import load_model as load  # noqa: F401
    from cypher.tasks.run import run_recipe as run_recipe

__version__ = "0.1.0"

_HOMES = {
    "CypherError": ("cypher.errors", "CypherError"),
    "Document": ("cypher.documents", "Document"),
    "QuestionAnswering": ("cypher.apps.qa", "QuestionAnswering"),
    "Recipe": ("cypher.config", "Recipe"),
    "Span": ("cypher.documents", "Span"),
    "load": ("cypher.models.load", "load_model"),
    "resolve": ("cypher.hub", "resolve"),
    "run_recipe": ("cypher.tasks.run", "run_recipe"),
}


def __getattr__(name: str) -> object:
    """Import a public name from its home when it is first asked for."""
    if name not in _HOMES:
        raise AttributeError(f"module 'cypher' has no attribute {name!r}")
    home, there = _HOMES[name]
    value = getattr(importlib.import_module(home), there)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
