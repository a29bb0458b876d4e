"""``[task]`` of kind ``compare``: one label for two stretches of text that are read together."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from cypher.config.section import Section


class CompareConfig(Section):
    """Two texts, or two words of one or two texts, get one label."""

    kind: Literal["compare"] = "compare"
    labels: tuple[str, ...] = Field(min_length=2)
    """Every label there is; their order is that of the head's outputs."""
    max_length: int = Field(default=256, ge=16)
    """Tokens of a row; of two texts the longer one is cut to its first tokens."""
    metric: Literal["accuracy", "macro_f1"] = "accuracy"
    """What chooses the best checkpoint."""
