"""Rows of a table as a passage with candidates: which of them are right, by a truth value for each."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from cypher.config import JudgeCandidatesConfig
from cypher.errors import DataError
from cypher.tasks.judge_candidates import JudgeRow
from cypher.tasks.table_rows import Fields, TableRows, text_of


def _make(config: JudgeCandidatesConfig, values: Mapping[str, Any], place: str) -> JudgeRow:
    candidates = _list(values["candidates"], "candidates", place)
    if not candidates or not all(isinstance(one, str) for one in candidates):
        raise DataError(f"{place}: candidates is {json.dumps(candidates)[:80]}", needed="a list of texts, at least 1")
    right = _right(values["right"], candidates, place) if "right" in values else None
    if right is not None and config.right == "one" and not any(right):
        raise DataError(f"{place}: none of {len(right)} candidates is right", needed="one that is")
    return JudgeRow(
        passage=text_of(values["passage"], "passage", place),
        question=str(values.get("question", "")),
        candidates=tuple(candidates),
        right=right,
    )


def _list(value: Any, name: str, place: str) -> list[Any]:
    """A list, which a format of text alone holds as JSON."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            value = None
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise DataError(f"{place}: {name} is no list", needed="a list (as JSON where the format has no lists)")
    return list(value)


def _right(value: Any, candidates: Sequence[Any], place: str) -> tuple[bool, ...]:
    right = _list(value, "right", place)
    if len(right) != len(candidates) or any(one not in (0, 1) for one in right):
        raise DataError(
            f"{place}: right is {json.dumps(right)[:80]} for {len(candidates)} candidates",
            needed="true or false for each candidate",
        )
    return tuple(bool(one) for one in right)


def _settle(
    config: JudgeCandidatesConfig, rows: Sequence[JudgeRow], others: Sequence[JudgeRow]
) -> JudgeCandidatesConfig:
    """The rows say nothing that the configuration needs."""
    return config


def _check(config: JudgeCandidatesConfig, row: JudgeRow) -> None:
    """A row that could be made fits."""


ROWS = TableRows(
    fields=Fields(inputs=("passage", "candidates"), optional=("question",), targets=("right",)),
    make=_make,
    settle=_settle,
    check=_check,
)
