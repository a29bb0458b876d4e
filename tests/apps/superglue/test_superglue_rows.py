"""Official lines become typed rows, and a wrong one is told with its file and line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from superglue_files import line, unlabelled, write_lines

from cypher.apps.superglue.benchmark import TASKS, find_tasks, is_labelled, read_rows
from cypher.errors import ConfigError, DataError


@pytest.mark.parametrize("key", TASKS)
def test_every_task_is_read_with_and_without_labels(key: str, tmp_path: Path) -> None:
    lines = [line(key, idx) for idx in range(12)]
    rows = read_rows(TASKS[key], write_lines(tmp_path / "a.jsonl", lines))
    assert len(rows) == 12
    assert all(is_labelled(row) for row in rows)
    bare = read_rows(TASKS[key], write_lines(tmp_path / "b.jsonl", [unlabelled(key, values) for values in lines]))
    assert not any(is_labelled(row) for row in bare)


@pytest.mark.parametrize("key", TASKS)
def test_a_missing_field_names_file_line_and_field(key: str, tmp_path: Path) -> None:
    for field in set(line(key, 0)) - {"label", "version", "logic", "source", "pair_id"}:
        broken = line(key, 1)
        del broken[field]
        path = write_lines(tmp_path / "a.jsonl", [line(key, 0), broken])
        with pytest.raises(DataError, match=rf"a\.jsonl, line 2: {field} is missing"):
            read_rows(TASKS[key], path)


@pytest.mark.parametrize(
    ("key", "label"),
    [
        ("boolq", 1),
        ("boolq", "true"),
        ("cb", "maybe"),
        ("copa", True),
        ("copa", 2),
        ("rte", "neutral"),
        ("wsc", "True"),
    ],
)
def test_an_unseen_label_is_refused_with_those_that_are_known(key: str, label: object, tmp_path: Path) -> None:
    path = write_lines(tmp_path / "a.jsonl", [{**line(key, 0), "label": label}])
    with pytest.raises(DataError, match=r"a\.jsonl, line 1: label = .*: needs one of "):
        read_rows(TASKS[key], path)


def test_an_unseen_label_inside_a_passage_is_refused(tmp_path: Path) -> None:
    values = line("multirc", 0)
    values["passage"]["questions"][1]["answers"][0]["label"] = 2
    with pytest.raises(DataError, match=r"line 1, passage, questions\[1\], answers\[0\]: label = 2: needs one of 0, 1"):
        read_rows(TASKS["multirc"], write_lines(tmp_path / "a.jsonl", [values]))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"premise": \n', "line 2 is not JSON"),
        ("[1]\n", "line 2 is a list: needs a JSON object"),
    ],
)
def test_a_broken_line_names_itself(text: str, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps(line("rte", 0)) + "\n" + text, encoding="utf-8")
    with pytest.raises(DataError, match=reason):
        read_rows(TASKS["rte"], path)


@pytest.mark.parametrize(
    ("key", "change", "reason"),
    [
        ("rte", {"idx": "1"}, 'idx = "1": needs a whole number'),
        ("rte", {"idx": True}, "idx = true: needs a whole number"),
        ("rte", {"premise": "  "}, "premise is blank"),
        ("copa", {"question": "why"}, "needs cause or effect"),
        ("record", {"qas": [{"query": "no place", "idx": 1}]}, "needs a text with @placeholder"),
        ("record", {"passage": {"text": "Anna", "entities": []}}, "entities is empty"),
        ("record", {"passage": {"text": "Anna", "entities": [{"start": 2, "end": 4}]}}, "characters 2 to 4 of a pass"),
        ("wic", {"start1": 5}, "characters 5 to 9 are"),
        ("wic", {"end2": 200}, "sentence2: characters"),
        ("wsc", {"target": {"span1_index": 0, "span1_text": "Nobody", "span2_index": 8, "span2_text": "he"}},
         "'Nobody' is not within 5 words of word 0"),
    ],
)  # fmt: skip
def test_a_line_that_cannot_be_is_refused(key: str, change: dict[str, Any], reason: str, tmp_path: Path) -> None:
    path = write_lines(tmp_path / "a.jsonl", [{**line(key, 0), **change}])
    with pytest.raises(DataError, match=reason.replace("(", r"\(")):
        read_rows(TASKS[key], path)


def test_one_idx_twice_is_refused(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "a.jsonl", [line("cb", 0), line("cb", 1), line("cb", 0)])
    with pytest.raises(DataError, match=r"line 3: idx 0 stands at .*line 1 already"):
        read_rows(TASKS["cb"], path)


def test_entities_end_at_their_last_character_and_stand_once(tmp_path: Path) -> None:
    (row,) = read_rows(TASKS["record"], write_lines(tmp_path / "a.jsonl", [line("record", 0)]))
    assert row.mentions == ("Anna", "David", "Anna")
    assert row.entities == ("Anna", "David")
    assert row.queries[0].answers == ("Anna",)


def test_tasks_are_found_by_key_in_the_order_of_the_leaderboard() -> None:
    assert [task.key for task in find_tasks("wsc, BoolQ")] == ["boolq", "wsc"]
    assert len(find_tasks("all")) == 8
    assert [task.key for task in find_tasks("all,ax-b")][-1] == "ax-b"
    for wrong in ("", "boolq,qnli"):
        with pytest.raises(ConfigError, match="needs all, or some of boolq"):
            find_tasks(wrong)


ROWS = {
    "BoolQ/val": 3270,
    "CB/train": 250,
    "CB/val": 56,
    "COPA/train": 400,
    "COPA/val": 100,
    "MultiRC/train": 456,
    "MultiRC/val": 83,
    "RTE/train": 2490,
    "RTE/val": 277,
    "WSC/train": 554,
    "WSC/val": 104,
    "WiC/train": 5428,
    "WiC/val": 638,
}


@pytest.mark.real_data
@pytest.mark.parametrize("name", ROWS)
def test_every_published_line_is_read(name: str, data_folder: Path) -> None:
    folder, stem = name.split("/")
    task = next(task for task in TASKS.values() if task.name == folder)
    rows = read_rows(task, data_folder / "superglue_full" / folder / f"{stem}.jsonl.gz")
    assert len(rows) == ROWS[name]
    assert all(is_labelled(row) for row in rows)


@pytest.mark.real_data
@pytest.mark.parametrize("key", [key for key, task in TASKS.items() if not task.diagnostic_of])
def test_every_few_shot_line_is_read(key: str, data_folder: Path) -> None:
    for stem in ("train", "dev32"):
        path = data_folder / "superglue_fewshot32" / TASKS[key].name / f"{stem}.jsonl.gz"
        assert len(read_rows(TASKS[key], path)) == 32
