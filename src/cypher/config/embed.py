"""``[task]`` of texts whose vectors shall be near each other."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from cypher.config.section import Section


class EmbedConfig(Section):
    """Vectors of texts that belong together, against those of all others in the batch (InfoNCE: van den Oord et al.
    2018, arXiv 1807.03748).
    """

    kind: Literal["embed"] = "embed"
    max_length: int = Field(default=128, ge=4)
    """Tokens of a text, special ones included; what is longer is cut."""
    pooling: Literal["mean", "first", "last"] = "mean"
    """What of a text's tokens becomes its vector; a decoder's first token has seen no other."""
    temperature: float = Field(default=0.05, gt=0)
    """Cosines are divided by it before the softmax."""
    symmetric: bool = False
    """Whether the second texts also look for their first ones; both directions then count half."""
    gradient_cache: bool = False
    """Whether train.accumulation encodes a batch in so many parts, one at a time, and still compares all of its texts
    (Gao et al. 2021, arXiv 2101.06983): one forward more, and the memory of one part."""
    parts: int | None = Field(default=None, ge=1)
    """Those parts; null takes train.accumulation."""
