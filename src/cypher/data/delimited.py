"""CSV (RFC 4180) and TSV (text/tab-separated-values): a header with the names of the columns, then rows."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from typing import IO

from cypher.data.table_row import BadRows, TableRow
from cypher.data.text_lines import TextLines
from cypher.errors import DataError

# The largest field there may be; csv's own limit of 131,072 characters is below that of long documents.
_LARGEST_FIELD = 2**31 - 1


def read_delimited(file: IO[bytes], *, name: str, bad: BadRows, quoted: bool) -> Iterator[TableRow]:
    """The rows of a CSV or TSV file, all values as text; blank lines are passed over.

    Args:
        file: Bytes, unpacked.
        name: Of the file, for errors.
        bad: What is done with a row that has more or fewer fields than the header, or broken quotes.
        quoted: CSV, where a field in quotes may hold commas, quotes and line ends; in a TSV quotes are characters
            like others.

    Raises:
        DataError: The file is empty, its header names a column twice or not at all, or a row cannot be read.
    """
    lines = TextLines(file, name=name, bad=bad)
    csv.field_size_limit(_LARGEST_FIELD)
    rows = csv.reader(lines, strict=True) if quoted else _tabbed(lines)
    header: list[str] | None = None
    while True:
        lines.first = None
        try:
            fields = next(rows, None)
        except csv.Error as error:
            problem = DataError(
                f"{lines.place} is no CSV ({error})", change="close its quotes, and double those inside"
            )
            if header is None:
                raise problem from None
            bad.report(problem)
            continue
        if fields is None:
            break
        if not any(fields):
            continue
        if header is None:
            header = _checked(fields, lines)
        elif len(fields) != len(header):
            bad.report(
                DataError(f"{lines.place} has {len(fields)} fields", needed=f"{len(header)}, as the header names")
            )
        else:
            yield TableRow(values=dict(zip(header, fields, strict=True)), place=lines.place)
    if header is None:
        raise DataError(f"{name} is empty", needed="a header and rows")


def _tabbed(lines: TextLines) -> Iterator[list[str]]:
    for line in lines:
        yield line.rstrip("\r\n").split("\t")


def _checked(header: list[str], lines: TextLines) -> list[str]:
    names = [name.strip() for name in header]
    twice = next((name for place, name in enumerate(names) if name in names[:place]), None)
    if twice is not None or "" in names:
        what = f"column {twice!r} twice" if twice else "a column without a name"
        raise DataError(f"{lines.place}: the header has {what}", needed="a name of its own for every column")
    return names
