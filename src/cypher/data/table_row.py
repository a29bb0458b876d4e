"""A row of a table with its place, and what is done with rows that cannot be read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cypher.errors import DataError


@dataclass(frozen=True, kw_only=True)
class TableRow:
    """One row.

    Args:
        values: By column; text where the format knows nothing else.
        place: File and line (or row, where a format has no lines), counted from 1.
    """

    values: Mapping[str, Any]
    place: str


class BadRows:
    """Ends at the first row that cannot be read, or leaves such rows out and counts them.

    Args:
        skip: Leave them out.
    """

    def __init__(self, *, skip: bool = False) -> None:
        self.skip = skip
        self.skipped = 0
        self.first: DataError | None = None

    def report(self, error: DataError) -> None:
        """Take note of a bad row.

        Raises:
            DataError: That very error, unless bad rows are left out.
        """
        if not self.skip:
            raise error
        self.skipped += 1
        self.first = self.first or error
