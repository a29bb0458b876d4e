"""``[task]`` of kind ``choose``: which of several candidates goes with a text."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from cypher.config.classify import Pooling
from cypher.config.section import Section


class ChooseConfig(Section):
    """One of several candidates for a text, each read with it; rows may have different numbers of candidates."""

    kind: Literal["choose"] = "choose"
    max_length: int = Field(default=256, ge=8)
    """Tokens of a text with one candidate and its special tokens; the longer of the two is cut to its first tokens."""
    pooling: Pooling | None = None
    """What the head reads: the first real token, the mean of all, or the last; null takes the mean in an encoder
    and the last in a decoder."""
