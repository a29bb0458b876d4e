"""A submission from whatever there is: models, majorities, official numbers of rows, and what is said about each."""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path
from typing import Any

import pytest
from superglue_files import write_benchmark

from cypher.apps.superglue.benchmark import TASKS, BenchmarkTask
from cypher.apps.superglue.check_submission import check_archive
from cypher.apps.superglue.predictions import Majority
from cypher.apps.superglue.submit import split_rows, submit

CONSTANT = {"boolq": True, "cb": "neutral", "copa": 1, "multirc": 1, "record": None, "rte": "entailment", "wic": True,
            "wsc": True, "ax-b": "entailment", "ax-g": "entailment"}  # fmt: skip


def knows_all(task: BenchmarkTask, rows: Any) -> list[Any]:
    return Majority(label=CONSTANT[task.key]).predict(rows)


def lines(path: Path, name: str) -> list[dict[str, Any]]:
    with zipfile.ZipFile(path) as archive:
        return [json.loads(text) for text in archive.read(f"{name}.jsonl").decode().splitlines()]


@pytest.mark.parametrize("split", ["test", "val"])
def test_a_whole_run_answers_every_row(split: Any, tmp_path: Path) -> None:
    data = write_benchmark(tmp_path / "data")
    done = submit(tmp_path / "submission.zip", [data], knows_all, split=split)
    assert (done.notes, done.problems) == ([], [])
    assert done.lines == {key: len(rows) for key, rows in split_rows([data], split).items()}
    assert done.lines["rte"] == (6 if split == "test" else 8)
    assert {line["label"] for line in lines(done.path, "WSC")} == {"True"}
    assert {line["label"] for line in lines(done.path, "BoolQ")} == {"true"}
    assert check_archive(done.path, split_rows([data], split)) == []


def test_a_task_that_is_not_in_the_run_gets_the_majority_and_is_said_so(tmp_path: Path) -> None:
    data = write_benchmark(tmp_path / "data")

    def all_but_cb(task: BenchmarkTask, rows: Any) -> list[Any] | None:
        return None if task.key == "cb" else knows_all(task, rows)

    done = submit(tmp_path / "submission.zip", [data], all_but_cb)
    assert done.notes == ["CB: not in the run, the majority answers 6 rows"]
    assert done.problems == []
    assert len({line["label"] for line in lines(done.path, "CB")}) == 1


def test_a_task_without_a_test_file_gets_the_official_number_of_rows(tmp_path: Path) -> None:
    data = write_benchmark(tmp_path / "data")
    for name in ("BoolQ", "AX-b", "MultiRC"):
        shutil.rmtree(data / name)
    (data / "COPA" / "test.jsonl").unlink()
    done = submit(tmp_path / "submission.zip", [data], knows_all)
    assert [note.split(":")[0] for note in done.notes] == ["BoolQ", "COPA", "MultiRC", "AX-b"]
    assert done.lines["boolq"] == TASKS["boolq"].test_size == 3245
    assert lines(done.path, "COPA")[499] == {"idx": 499, "label": lines(done.path, "COPA")[0]["label"]}
    assert {line["label"] for line in lines(done.path, "AX-b")} <= {"entailment", "not_entailment"}
    assert done.problems == ["MultiRC.jsonl has no lines"]


@pytest.mark.real_data
def test_the_published_validation_files_are_answered(tmp_path: Path, data_folder: Path) -> None:
    folders = [data_folder / "superglue_full", data_folder / "superglue_fewshot32"]

    def nothing(task: BenchmarkTask, rows: Any) -> None:
        return None

    done = submit(tmp_path / "submission.zip", folders, nothing, split="val")
    assert done.lines["multirc"] == 83
    assert done.lines["wsc"] == 104
    assert done.lines["record"] == 32
    assert done.problems == []
