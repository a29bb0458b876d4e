"""Tables row by row, whatever their format: JSON lines, CSV, TSV, Parquet, Hugging Face's folders.

A row knows its file and line, so that every error about it can say where it stands.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from cypher.data.columnar import read_arrow_folder, read_parquet
from cypher.data.delimited import read_delimited
from cypher.data.json_lines import read_json_lines
from cypher.data.table_row import BadRows, TableRow
from cypher.data.text_lines import opened
from cypher.errors import DataError

__all__ = ["BadRows", "TableRow", "read_json_lines", "read_table"]

FORMATS = ".jsonl, .csv, .tsv (plain or .gz), .parquet, or a folder that Hugging Face's datasets has saved"


def read_table(path: Path, *, bad: BadRows | None = None) -> Iterator[TableRow]:
    r"""The rows of a table, one by one.

    Args:
        path: A file whose suffix says its format, or a folder that ``Dataset.save_to_disk`` has written.
        bad: What is done with rows that cannot be read; ``None`` ends at the first.

    Raises:
        DataError: The file is missing, empty, broken or of another format; or a row cannot be read.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "rows.csv"
        >>> _ = path.write_text('text,label\n"one, two",a\n')
        >>> [(dict(row.values), row.place.rsplit(", ")[-1]) for row in read_table(path)]
        [({'text': 'one, two', 'label': 'a'}, 'line 2')]
    """
    bad = BadRows() if bad is None else bad
    if path.is_dir():
        yield from _some(path, read_arrow_folder(path))
        return
    if not path.exists():
        raise DataError(f"there is no {path}", needed=FORMATS)
    suffix = Path(path.name.lower().removesuffix(".gz")).suffix
    if suffix in (".jsonl", ".ndjson", ".json"):
        with opened(path) as file:
            yield from _some(path, read_json_lines(file, name=str(path), bad=bad), bad)
    elif suffix in (".csv", ".tsv"):
        with opened(path) as file:
            yield from _some(path, read_delimited(file, name=str(path), bad=bad, quoted=suffix == ".csv"), bad)
    elif suffix == ".parquet":
        yield from _some(path, read_parquet(path))
    else:
        raise DataError(f"{path} ends in {suffix or 'nothing'}", needed=FORMATS)


def _some(path: Path, rows: Iterator[TableRow], bad: BadRows | None = None) -> Iterator[TableRow]:
    """The rows, of which there must be some."""
    skipped, is_empty = 0 if bad is None else bad.skipped, True
    for row in rows:
        is_empty = False
        yield row
    if is_empty and (bad is None or bad.skipped == skipped):
        raise DataError(f"{path} has no rows", needed="at least one")
