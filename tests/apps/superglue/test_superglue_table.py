"""The table sets a run beside the leaderboard, with the source of every row."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cypher.apps.superglue.benchmark import SCORED, TASKS
from cypher.apps.superglue.published import PUBLISHED, SOURCE
from cypher.apps.superglue.table import cells, columns, read_scores, shown_tasks, table_page, table_rows
from cypher.errors import DataError


def scores(*keys: str) -> dict[str, Any]:
    tasks = {
        key: {
            "metrics": dict.fromkeys(TASKS[key].metrics, 0.75),
            "majority": dict.fromkeys(TASKS[key].metrics, 0.5),
            "origin": {"report": "val, 20% by hash" if key == "boolq" else "val"},
        }
        for key in keys
    }
    return {"model": "minilm", "adapter": "lora", "few_shot": False, "tasks": tasks}


def write(folder: Path, values: object) -> Path:
    folder.mkdir()
    (folder / "scores.json").write_text(json.dumps(values), encoding="utf-8")
    return folder


def test_a_whole_run_has_a_mean_and_its_majority_beside_it(tmp_path: Path) -> None:
    run = write(tmp_path / "mine", scores(*SCORED))
    rows = table_rows([run])
    assert [row.name for row in rows] == [
        "mine (minilm with lora)",
        "majority of the training rows",
        *(row.name for row in PUBLISHED),
    ]
    assert [row.score for row in rows[:2]] == [75.0, 50.0]
    assert "BoolQ: val, 20% by hash" in rows[0].source
    assert all(row.source == SOURCE for row in rows[2:])


def test_a_part_of_a_run_has_no_mean(tmp_path: Path) -> None:
    rows = table_rows([write(tmp_path / "mine", scores("cb", "ax-g"))])
    keys = shown_tasks(rows)
    assert keys == [*SCORED, "ax-g"]
    assert columns(rows)[2:5] == ["BoolQ acc", "CB F1/acc", "COPA acc"]
    assert cells(rows[0], keys)[:4] == ["mine (minilm with lora)", "–", "–", "75.0/75.0"]
    assert cells(rows[2], keys)[:4] == ["ERNIE 3.0 12B", "90.6", "91.0", "98.6/99.2"]
    assert len(cells(rows[0], keys)) == len(columns(rows))


def test_the_page_has_every_row_and_source_once(tmp_path: Path) -> None:
    rows = table_rows([write(tmp_path / "mine <b>", scores(*SCORED))])
    html = table_page(rows)
    assert html.count("<tr>") == len(rows) + 1
    assert html.count(SOURCE) == 1
    assert "mine &lt;b&gt; (minilm with lora)" in html


@pytest.mark.parametrize("values", [None, [], {"tasks": 3}, {}])
def test_a_folder_without_scores_is_told(values: object, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"scores\.json cannot be read .*needs the folder of a cypher superglue run"):
        read_scores(tmp_path if values is None else write(tmp_path / "run", values))
