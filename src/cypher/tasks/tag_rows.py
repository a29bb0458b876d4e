"""Rows of a table as words with tags: lists, or texts with spaces between words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cypher.config import TagConfig
from cypher.errors import DataError
from cypher.tasks.table_rows import Fields, TableRows
from cypher.tasks.tag import TagRow


def _make(config: TagConfig, values: Mapping[str, Any], place: str) -> TagRow:
    words = _list(values["words"], "words", place)
    if not words:
        raise DataError(f"{place}: words is empty", needed="at least one word")
    tags = _list(values["tags"], "tags", place) if "tags" in values else None
    if tags is not None and len(tags) != len(words):
        raise DataError(f"{place} has {len(words)} words and {len(tags)} tags", needed="a tag for every word")
    if tags is not None and config.scheme == "bio":
        for tag in tags:
            if tag != "O" and not (tag[:2] in ("B-", "I-") and len(tag) > 2):
                raise DataError(
                    f"{place}: tag {tag!r}",
                    needed="O, B-TYPE or I-TYPE",
                    change='set task.scheme = "none" for tags that mark no entities',
                )
    return TagRow(words=words, tags=tags, place=place)


def _list(value: Any, field: str, place: str) -> tuple[str, ...]:
    if isinstance(value, str):
        return tuple(value.split())
    if isinstance(value, list) and all(isinstance(one, (str, int)) and not isinstance(one, bool) for one in value):
        return tuple(str(one) for one in value)
    raise DataError(f"{place}: {field} is {type(value).__name__}", needed="a list of texts, or one text with spaces")


def _settle(config: TagConfig, rows: Sequence[TagRow], others: Sequence[TagRow]) -> TagConfig:
    """With the tags of all rows, sorted."""
    if config.tags is not None:
        return config
    tags = sorted({tag for row in (*rows, *others) for tag in row.tags or ()})
    if len(tags) < 2:
        raise DataError(f"all words have the tag {''.join(tags)!r}", needed="2 tags")
    return TagConfig.model_validate({**config.model_dump(), "tags": tags})


def _check(config: TagConfig, row: TagRow) -> None:
    """Every tag must be one of the task's, once these are known."""
    if config.tags is None:
        return
    for tag in row.tags or ():
        if tag not in config.tags:
            raise DataError(
                f"{row.place}: tag {tag!r} is not one of the task's", needed=f"one of {', '.join(config.tags[:12])}"
            )


ROWS = TableRows(fields=Fields(inputs=("words",), targets=("tags",)), make=_make, settle=_settle, check=_check)
