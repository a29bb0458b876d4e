"""Rows that are reported on choose nothing, and a text is never on two sides."""

from __future__ import annotations

from pathlib import Path

import pytest
from superglue_files import line, write_benchmark, write_lines

from cypher.apps.superglue.benchmark import SCORED, TASKS, group_of
from cypher.apps.superglue.parts import task_parts
from cypher.errors import DataError


@pytest.mark.parametrize("key", SCORED)
def test_a_part_of_train_chooses_and_val_is_reported(key: str, tmp_path: Path) -> None:
    parts = task_parts([write_benchmark(tmp_path, train=40)], TASKS[key])
    assert {row.idx for row in parts.report} == set(range(40, 48))
    assert {row.idx for row in parts.train} | {row.idx for row in parts.choose} == set(range(40))
    assert not {group_of(row) for row in parts.train} & {group_of(row) for row in parts.choose}


def test_without_rows_held_out_all_of_train_is_learnt_from(tmp_path: Path) -> None:
    folders = [write_benchmark(tmp_path, train=40)]
    parts = task_parts(folders, TASKS["cb"], hold_out=False)
    assert {row.idx for row in parts.train} == set(range(40))
    assert (parts.choose, parts.origin["choose"]) == ([], "nothing")
    assert {row.idx for row in parts.report} == set(range(40, 48))
    assert task_parts(folders, TASKS["cb"], hold_out=False, few_shot=True).choose


def test_a_validation_file_alone_is_divided_in_three_for_boolq_only(tmp_path: Path) -> None:
    for key in ("boolq", "rte"):
        write_lines(tmp_path / TASKS[key].name / "val.jsonl", [line(key, idx) for idx in range(200)])
    parts = task_parts([tmp_path], TASKS["boolq"])
    sides = [{row.idx for row in part} for part in (parts.train, parts.choose, parts.report)]
    assert sum(len(side) for side in sides) == len(set.union(*sides)) == 200
    assert len(sides[0]) > len(sides[2]) > len(sides[1]) > 0
    assert "val, 20% by hash" in parts.origin["report"]
    all_learnt = task_parts([tmp_path], TASKS["boolq"], hold_out=False)
    assert {row.idx for row in all_learnt.train} == sides[0] | sides[1]
    assert all_learnt.report == parts.report
    assert (all_learnt.choose, all_learnt.origin["train"]) == ([], "val, 80% by hash")
    assert task_parts([tmp_path], TASKS["boolq"], hold_out=False, few_shot=True).choose
    with pytest.raises(DataError, match=r"RTE has no train\.jsonl \(there is val\.jsonl\)"):
        task_parts([tmp_path], TASKS["rte"])


def test_files_that_are_missing_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"CB: there is no folder .*CB.* name the folder that has it with --data"):
        task_parts([tmp_path], TASKS["cb"])
    write_lines(tmp_path / "CB" / "train.jsonl", [line("cb", idx) for idx in range(9)])
    with pytest.raises(DataError, match=r"CB has no val\.jsonl \(there is train\.jsonl\)"):
        task_parts([tmp_path], TASKS["cb"])
    bare = {key: value for key, value in line("cb", 1).items() if key != "label"}
    write_lines(tmp_path / "CB" / "val.jsonl", [line("cb", 0), bare])
    with pytest.raises(DataError, match="1 of 2 rows have no label"):
        task_parts([tmp_path], TASKS["cb"])


def test_a_few_shot_set_reports_on_what_it_does_not_choose_by(tmp_path: Path) -> None:
    for stem, first in (("train", 0), ("dev32", 32)):
        write_lines(tmp_path / "RTE" / f"{stem}.jsonl", [line("rte", idx) for idx in range(first, first + 32)])
    alone = task_parts([tmp_path], TASKS["rte"])
    assert {row.idx for row in alone.report} == set(range(32, 64))
    assert {row.idx for row in alone.train} | {row.idx for row in alone.choose} == set(range(32))
    write_lines(tmp_path / "RTE" / "val.jsonl", [line("rte", idx) for idx in range(64, 70)])
    beside = task_parts([tmp_path], TASKS["rte"])
    assert [len(part) for part in (beside.train, beside.choose, beside.report)] == [32, 32, 6]


def test_few_shot_takes_few_rows_to_learn_from_and_all_to_report_on(tmp_path: Path) -> None:
    parts = task_parts([write_benchmark(tmp_path, train=200, val=50)], TASKS["rte"], few_shot=True)
    assert [len(part) for part in (parts.train, parts.choose, parts.report)] == [32, 32, 50]


def test_the_first_folder_that_has_the_task_is_taken(tmp_path: Path) -> None:
    write_lines(tmp_path / "b" / "CB" / "train.jsonl", [line("cb", idx) for idx in range(30)])
    write_lines(tmp_path / "b" / "CB" / "val.jsonl", [line("cb", idx) for idx in range(30, 40)])
    (tmp_path / "a").mkdir()
    assert len(task_parts([tmp_path / "a", tmp_path / "b"], TASKS["cb"]).report) == 10


@pytest.mark.real_data
@pytest.mark.parametrize("key", SCORED)
def test_the_published_files_divide(key: str, data_folder: Path) -> None:
    folders = [data_folder / "superglue_full", data_folder / "superglue_fewshot32"]
    parts = task_parts(folders, TASKS[key])
    assert not {group_of(row) for row in parts.train} & {group_of(row) for row in parts.choose}
    if key == "boolq":
        assert not {group_of(row) for row in parts.train + parts.choose} & {group_of(row) for row in parts.report}
    assert len(parts.train) > 2 * len(parts.choose)
