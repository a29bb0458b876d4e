"""``[data]``: which rows are trained on and which are held out."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from cypher.config.section import Section


class DataConfig(Section):
    """Rows of catalogued data sets or of files; a file's suffix says its format.

    Span extraction reads SQuAD's JSON. All other tasks read tables: JSON lines, CSV, TSV (the three also gzipped),
    Parquet, and the folders that Hugging Face's datasets saves.
    """

    train: tuple[str, ...] = Field(min_length=1)
    """Names of the catalogue (``cypher data list``) or paths of files; their rows are put together."""
    development: tuple[str, ...] = ()
    """Likewise, to choose the best checkpoint by; empty holds out a share of the training rows."""
    development_fraction: float = Field(default=0.05, gt=0, lt=1)
    """That share, by a hash of the row's text (or passage), so that equal texts are on one side."""
    columns: dict[str, str] = Field(default_factory=dict)
    """Where a table calls a field otherwise than the task: field of the task = column of the file, for example
    text = "sentence"."""
    skip_bad_rows: bool = False
    """Rows of tables that cannot be read are left out and counted, instead of ending the run."""
    sampling: Literal["natural", "balanced"] = "natural"
    """balanced repeats rows of rarer labels until every label has as many as the most frequent one (classify)."""
    unanswerable: float = Field(default=0.0, ge=0)
    """Unanswerable pairs made per answerable question (``tasks/unanswerable.py`` says how); above 0 the held-out rows
    get one a question."""
    limit: int | None = Field(default=None, ge=1)
    """Train on at most so many rows; null takes all. Of questions the first ones, of tables a random choice that
    stays the same."""
