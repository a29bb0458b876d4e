"""Parquet files, and the folders that Hugging Face's ``Dataset.save_to_disk`` writes, a batch of rows at a time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cypher.data.table_row import TableRow
from cypher.errors import DataError
from cypher.files import read_json

# Rows in memory at once.
_BATCH = 1024


def read_parquet(path: Path) -> Iterator[TableRow]:
    """The rows of a Parquet file.

    Raises:
        DataError: pyarrow is not installed, or the file is broken.
    """
    pa = _pyarrow()
    from pyarrow import parquet

    number = 0
    try:
        with parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=_BATCH):
                for values in batch.to_pylist():
                    number += 1
                    yield TableRow(values=values, place=f"{path}, row {number}")
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path} cannot be read as Parquet ({_line(error)})", change="write it again") from error


def read_arrow_folder(folder: Path) -> Iterator[TableRow]:
    """The rows of one saved data set; class labels come by their names.

    Raises:
        DataError: The folder holds several parts, none, or a broken one; or pyarrow is not installed.
    """
    pa = _pyarrow()
    if (folder / "dataset_dict.json").is_file():
        parts = read_json(folder / "dataset_dict.json").get("splits", [])
        raise DataError(f"{folder} holds {len(parts)} data sets", needed="one", change=f"name {_either(folder, parts)}")
    if not (folder / "state.json").is_file():
        raise DataError(f"{folder} is a folder", needed="a file, or a folder with the state.json of a saved data set")
    names = _class_labels(folder)
    for file in read_json(folder / "state.json").get("_data_files", []):
        path, number = folder / str(file.get("filename")), 0
        try:
            with pa.memory_map(str(path)) as source, pa.ipc.open_stream(source) as reader:
                for batch in reader:
                    for start in range(0, batch.num_rows, _BATCH):
                        for values in batch.slice(start, _BATCH).to_pylist():
                            number += 1
                            yield TableRow(values=_named(values, names), place=f"{path}, row {number}")
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"{path} cannot be read as Arrow ({_line(error)})", change="save it again") from error


def _class_labels(folder: Path) -> dict[str, list[str]]:
    """Names of labels by column; -1 stands for none."""
    path = folder / "dataset_info.json"
    features = read_json(path).get("features") if path.is_file() else None
    return {
        column: list(about["names"])
        for column, about in (features or {}).items()
        if isinstance(about, dict) and about.get("_type") == "ClassLabel" and about.get("names")
    }


def _named(values: dict[str, Any], names: dict[str, list[str]]) -> dict[str, Any]:
    if not names:
        return values

    def name(column: str, value: Any) -> Any:
        if column not in names or not isinstance(value, int):
            return value
        return names[column][value] if 0 <= value < len(names[column]) else None

    return {column: name(column, value) for column, value in values.items()}


def _either(folder: Path, parts: list[str]) -> str:
    return " or ".join(str(folder / part) for part in parts) or "one of them"


def _line(error: Exception) -> str:
    return str(error).split("\n", 1)[0][:200]


def _pyarrow() -> Any:
    try:
        import pyarrow as pa
        import pyarrow.ipc
    except ImportError:
        raise DataError(
            "Parquet and Arrow files without pyarrow", change="pip install 'nlp-cypher[data]', or convert to .jsonl"
        ) from None
    return pa
