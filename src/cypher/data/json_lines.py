"""JSON lines: one object a line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import IO

from cypher.data.table_row import BadRows, TableRow
from cypher.data.text_lines import TextLines
from cypher.errors import DataError


def read_json_lines(file: IO[bytes], *, name: str, bad: BadRows) -> Iterator[TableRow]:
    r"""The rows of a file of JSON lines; each is given as soon as its line is there. Blank lines are passed over.

    Args:
        file: Bytes, unpacked.
        name: Of the file, for errors.
        bad: What is done with a line that is no JSON object.

    Raises:
        DataError: A line is not UTF-8 or no JSON object.

    Example:
        >>> import io
        >>> file = io.BytesIO(b'{"text": "a"}\n\n{"text": "b"}\n')
        >>> [row.place for row in read_json_lines(file, name="f", bad=BadRows())]
        ['f, line 1', 'f, line 3']
    """
    lines = TextLines(file, name=name, bad=bad)
    while True:
        lines.first = None
        line = next(lines, None)
        if line is None:
            return
        if not line.strip():
            continue
        try:
            values = json.loads(line)
        except ValueError as error:
            bad.report(_no_object(lines, line, str(error)))
            continue
        except RecursionError:
            bad.report(_no_object(lines, line, "nested too deeply"))
            continue
        if not isinstance(values, dict):
            bad.report(_no_object(lines, line, f"a {type(values).__name__}"))
            continue
        yield TableRow(values=values, place=lines.place)


def _no_object(lines: TextLines, line: str, reason: str) -> DataError:
    if lines.number == 1 and line.lstrip().startswith("["):
        return DataError(f"{lines.place}: the file is one JSON array", needed="one JSON object a line")
    return DataError(f"{lines.place} is no JSON object ({reason})", needed="one JSON object a line")
