"""``[task]`` of kind ``regress``: a number for a text or a pair of texts."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from cypher.config.classify import Pooling
from cypher.config.section import Section


class RegressConfig(Section):
    """A number for a text, or for two texts that are read together, such as how alike they are."""

    kind: Literal["regress"] = "regress"
    max_length: int = Field(default=256, ge=8)
    """Tokens of a row with its special tokens; of two texts the longer one is cut to its first tokens."""
    pooling: Pooling | None = None
    """What the head reads: the first real token, the mean of all, or the last; null takes the mean in an encoder
    and the last in a decoder."""
    metric: Literal["pearson", "spearman"] = "pearson"
    """What chooses the best checkpoint."""
    mean: float | None = None
    """Of the training values; null measures it. The head learns (value - mean) / deviation."""
    deviation: float | None = Field(default=None, gt=0)
    """Standard deviation of the training values; null measures it."""

    @model_validator(mode="after")
    def _both_or_none(self) -> RegressConfig:
        if (self.mean is None) != (self.deviation is None):
            raise ValueError("mean and deviation are given together or measured together")
        return self
