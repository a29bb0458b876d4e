"""``[data]``: which rows are trained on and which are held out."""

from __future__ import annotations

from pydantic import Field

from cypher.config.section import Section


class DataConfig(Section):
    """Rows of catalogued data sets or of files in the same format."""

    train: tuple[str, ...] = Field(min_length=1)
    """Names of the catalogue (``cypher data list``) or paths of files; their rows are put together."""
    development_fraction: float = Field(default=0.05, gt=0, lt=1)
    """Share of the passages held out to choose the best checkpoint, by a hash of the passage."""
    unanswerable: float = Field(default=0.0, ge=0)
    """Unanswerable pairs made per answerable question (``tasks/unanswerable.py`` says how); above 0 the held-out rows
    get one a question."""
    limit: int | None = Field(default=None, ge=1)
    """Train on at most so many questions; null takes all."""
