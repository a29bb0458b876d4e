"""The majority comes from the training rows alone and answers every form of row."""

from __future__ import annotations

from pathlib import Path

import pytest
from superglue_files import line, write_lines

from cypher.apps.superglue.benchmark import TASKS, read_rows
from cypher.apps.superglue.metrics import score
from cypher.apps.superglue.predictions import majority
from cypher.apps.superglue.rows import CopaRow
from cypher.errors import DataError


@pytest.mark.parametrize("key", TASKS)
def test_every_row_gets_an_answer_of_its_form(key: str, tmp_path: Path) -> None:
    rows = read_rows(TASKS[key], write_lines(tmp_path / "a.jsonl", [line(key, idx) for idx in range(6)]))
    found = majority(TASKS[key], rows).predict(rows)
    assert len(found) == 6
    assert all(0 <= value <= 1 for value in score(TASKS[key], rows, found).values())


def test_the_most_frequent_label_wins_and_ties_go_to_the_first() -> None:
    assert majority(TASKS["copa"], _copa([1, 1, 0])).label == 1
    assert majority(TASKS["copa"], _copa([1, 0])).label == 0
    with pytest.raises(DataError, match="none of 1 rows of COPA has a label"):
        majority(TASKS["copa"], _copa([None]))


def _copa(labels: list[int | None]) -> list[CopaRow]:
    return [
        CopaRow(idx=idx, premise="a", question="cause", choices=("b", "c"), label=label)
        for idx, label in enumerate(labels)
    ]


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("key", "stem", "expected"), [("wsc", "val", 0.635), ("boolq", "val", 0.622), ("cb", "val", 0.5)]
)
def test_the_published_baselines_come_out(key: str, stem: str, expected: float, data_folder: Path) -> None:
    folder = data_folder / "superglue_full" / TASKS[key].name
    rows = read_rows(TASKS[key], folder / f"{stem}.jsonl.gz")
    train = rows if key == "boolq" else read_rows(TASKS[key], folder / "train.jsonl.gz")
    found = score(TASKS[key], rows, majority(TASKS[key], train).predict(rows))
    assert found["accuracy"] == pytest.approx(expected, abs=0.001)
