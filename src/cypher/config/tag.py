"""``[task]`` of kind ``tag``: a tag for every word."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from cypher.config.section import Section


class TagConfig(Section):
    """A tag for each word of a row, such as the entity it belongs to or its part of speech."""

    kind: Literal["tag"] = "tag"
    scheme: Literal["bio", "none"] = "bio"
    """Whether tags are O, B-TYPE and I-TYPE and mark entities (Ramshaw and Marcus 1995, arXiv cmp-lg/9505040), or
    stand for themselves."""
    tags: tuple[str, ...] | None = Field(default=None, min_length=2)
    """Every tag there is, in the order of the head's outputs; null takes those of the data, sorted."""
    max_length: int = Field(default=256, ge=8)
    """Tokens that are read at once; a longer row is cut between words into parts that are read one by one."""
