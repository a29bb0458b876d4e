"""Tables: every format gives the same rows; every way a file can be broken is one line with its place."""

from __future__ import annotations

import gzip
import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest

from cypher.data.table import BadRows, read_json_lines, read_table
from cypher.errors import DataError

ROWS = [
    {"text": 'one, "two"', "label": "a"},
    {"text": "größer\nzwei Zeilen", "label": "b"},
    {"text": "日本", "label": ""},
]


def csv_of(rows: list[dict[str, str]], end: str = "\n") -> str:
    quoted = [['"' + value.replace('"', '""') + '"' for value in row.values()] for row in rows]
    return end.join(["text,label", *(",".join(row) for row in quoted)]) + end


def write_jsonl(folder: Path) -> Path:
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS), encoding="utf-8")
    return path


def write_packed_jsonl(folder: Path) -> Path:
    path = folder / "rows.jsonl.gz"
    path.write_bytes(gzip.compress(write_jsonl(folder).read_bytes()))
    return path


def write_csv(folder: Path) -> Path:
    (folder / "rows.csv").write_text(csv_of(ROWS), encoding="utf-8")
    return folder / "rows.csv"


def write_packed_csv_with_bom(folder: Path) -> Path:
    (folder / "rows.csv.gz").write_bytes(gzip.compress(b"\xef\xbb\xbf" + csv_of(ROWS).encode()))
    return folder / "rows.csv.gz"


def write_parquet(folder: Path) -> Path:
    pa.parquet.write_table(pa.Table.from_pylist(ROWS), folder / "rows.parquet")
    return folder / "rows.parquet"


def write_saved_set(folder: Path) -> Path:
    """As ``datasets.Dataset.save_to_disk`` lays it out, in two files."""
    out = folder / "saved"
    out.mkdir()
    names = ["data-00000-of-00002.arrow", "data-00001-of-00002.arrow"]
    for name, part in zip(names, (ROWS[:2], ROWS[2:]), strict=True):
        table = pa.Table.from_pylist(part)
        with pa.OSFile(str(out / name), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
            writer.write_table(table)
    (out / "state.json").write_text(json.dumps({"_data_files": [{"filename": name} for name in names]}))
    (out / "dataset_info.json").write_text(json.dumps({"features": {"text": {"dtype": "string", "_type": "Value"}}}))
    return out


WRITERS = [
    write_jsonl, write_packed_jsonl, write_csv, write_packed_csv_with_bom, write_parquet, write_saved_set
]  # fmt: skip


@pytest.mark.parametrize("write", WRITERS)
def test_every_format_gives_the_same_rows(write: Any, tmp_path: Path) -> None:
    path = write(tmp_path)
    rows = list(read_table(path))
    assert [dict(row.values) for row in rows] == ROWS
    assert all(str(path) in row.place for row in rows)


def test_a_row_knows_the_line_it_begins_at(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(b'text,label\r\n"a\r\nb\r\nc",x\r\n\r\nd,y\r\n')
    rows = list(read_table(path))
    assert [(row.values["text"], row.place.rsplit(" ", 1)[1]) for row in rows] == [("a\r\nb\r\nc", "2"), ("d", "6")]


def test_a_byte_order_mark_and_line_ends_of_windows_are_no_part_of_json_lines(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"text": "a"}\r\n\r\n{"text": "b"}')
    assert [(row.values["text"], row.place[-1]) for row in read_table(path)] == [("a", "1"), ("b", "3")]


def test_quotes_in_a_tsv_are_characters(tmp_path: Path) -> None:
    path = tmp_path / "rows.tsv"
    path.write_bytes(b'text\tlabel\r\n"so it goes\t1\r\nand, "so" on\t0\r\n')
    assert [row.values["text"] for row in read_table(path)] == ['"so it goes', 'and, "so" on']


def test_class_labels_come_by_their_names(tmp_path: Path) -> None:
    out = tmp_path / "saved"
    out.mkdir()
    table = pa.table({"text": ["x", "y", "z"], "label": [1, 0, -1]})
    with pa.OSFile(str(out / "data.arrow"), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table)
    (out / "state.json").write_text(json.dumps({"_data_files": [{"filename": "data.arrow"}]}))
    features = {"label": {"names": ["bad", "good"], "_type": "ClassLabel"}}
    (out / "dataset_info.json").write_text(json.dumps({"features": features}))
    assert [row.values["label"] for row in read_table(out)] == ["good", "bad", None]


BROKEN: list[tuple[str, bytes, str]] = [
    ("a.jsonl", b'{"text": "x"}\n{"text": \n', "a.jsonl, line 2 is no JSON object"),
    ("a.jsonl", b'{"text": "x"}\n\n[1, 2]\n', "a.jsonl, line 3 is no JSON object (a list)"),
    ("a.json", b'[{"text": "x"}]\n', "the file is one JSON array: needs one JSON object a line"),
    ("a.jsonl", b"", "a.jsonl has no rows"),
    ("a.jsonl", b'{"text": "x"}\n{"text": "\xff"}\n', "a.jsonl, line 2 is not UTF-8"),
    ("a.jsonl", '{"text": "x"}'.encode("utf-16"), "a.jsonl, line 1 is not UTF-8"),
    ("a.jsonl", b"[" * 100_000, "line 1"),
    ("a.csv", b"", "a.csv is empty"),
    ("a.csv", b"\xef\xbb\xbf", "a.csv is empty"),
    ("a.csv", b"text,label\n", "a.csv has no rows"),
    ("a.csv", b"text,label\nx,a\ny\n", "a.csv, line 3 has 1 fields: needs 2, as the header names"),
    ("a.csv", b'text,label\n"x\ny",a\nz,b,c\n', "a.csv, line 4 has 3 fields"),
    ("a.csv", b'text,label\nx,a\n"y,b\nz,c\n', "a.csv, line 3 is no CSV"),
    ("a.csv", b'text,label\n"x" y,a\n', "a.csv, line 2 is no CSV"),
    ("a.csv", b"text,text\nx,a\n", "a.csv, line 1: the header has column 'text' twice"),
    ("a.csv", b"text,\nx,a\n", "the header has a column without a name"),
    ("a.csv", b"text,label\nx,\xe9\n", "a.csv, line 2 is not UTF-8"),
    ("a.tsv", b"text\tlabel\nx\n", "a.tsv, line 2 has 1 fields"),
    ("a.csv.gz", gzip.compress(b"text,label\nx,a\n" * 5000)[:-20], "is a broken gzip file behind line"),
    ("a.parquet", b"PAR1 and nothing else", "a.parquet cannot be read as Parquet"),
    ("a.txt", b"x", "a.txt ends in .txt: needs .jsonl"),
    ("rows", b"x", "ends in nothing"),
]


@pytest.mark.parametrize(("name", "content", "said"), BROKEN)
def test_a_broken_file_is_one_line_with_its_place(name: str, content: bytes, said: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError) as caught:
        list(read_table(tmp_path / name))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_folders_that_are_no_data_set(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"is a folder: needs a file"):
        list(read_table(tmp_path))
    with pytest.raises(DataError, match="there is no"):
        list(read_table(tmp_path / "absent.csv"))
    (tmp_path / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    with pytest.raises(DataError, match=r"holds 2 data sets.*/train or .*/test"):
        list(read_table(tmp_path))
    (tmp_path / "dataset_dict.json").unlink()
    (tmp_path / "state.json").write_text('{"_data_files": [{"filename": "a.arrow"}]}')
    (tmp_path / "a.arrow").write_bytes(b"nothing")
    with pytest.raises(DataError, match=r"a.arrow cannot be read as Arrow"):
        list(read_table(tmp_path))


@pytest.mark.parametrize(
    ("name", "content", "texts", "skipped"),
    [
        ("a.jsonl", b'{"text": "x"}\nno\n{"text": "\xff"}\n[]\n{"text": "y"}\n', ["x", "y"], 3),
        ("a.csv", b'text,label\nx,a\ny\n"z" z,a\n\xff,a\nv,b\n', ["x", "v"], 3),
        ("a.tsv", b"text\tlabel\nx\ta\ny\nv\tb\n", ["x", "v"], 1),
    ],
)
def test_bad_rows_can_be_left_out_and_counted(
    name: str, content: bytes, texts: list[str], skipped: int, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(content)
    bad = BadRows(skip=True)
    assert [row.values["text"] for row in read_table(tmp_path / name, bad=bad)] == texts
    assert bad.skipped == skipped
    assert "line" in str(bad.first)


def test_lines_are_given_as_they_come() -> None:
    class Slow(io.BytesIO):
        """Fails when more is asked for than the first line."""

        n_read = 0

        def readline(self, size: int | None = -1) -> bytes:
            self.n_read += 1
            assert self.n_read == 1, "the second line was read before the first was given"
            return super().readline(size)

    rows = read_json_lines(Slow(b'{"text": "x"}\n{"text": "y"}\n'), name="-", bad=BadRows())
    assert next(rows).values == {"text": "x"}


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("name", "n_rows", "columns"),
    [
        ("banking77/train.csv.gz", 10_003, {"text", "category"}),
        ("goemotions/dev.tsv.gz", 5_426, {"text", "label", "id"}),
        ("sst5/dev.jsonl.gz", 1_101, {"sentence", "label"}),
    ],
)
def test_real_tables(name: str, n_rows: int, columns: set[str], data_folder: Path) -> None:
    rows = list(read_table(data_folder / name))
    assert len(rows) == n_rows
    assert all(set(row.values) == columns for row in rows)
