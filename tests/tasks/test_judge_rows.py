"""Tables of passages with candidates, read for training and for use, and refused with their line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cypher.config import JudgeCandidatesConfig, Recipe
from cypher.data.table import BadRows
from cypher.errors import DataError
from cypher.tasks.judge_candidates import JudgeRow
from cypher.tasks.judge_rows import ROWS
from cypher.tasks.run import run_recipe
from cypher.tasks.task_kind import Source
from cypher.tasks.use_task import evaluate, predict

LINE = {"passage": "the river", "question": "what is it", "candidates": ["a river", "a house"], "right": [True, False]}


def table(path: Path, *lines: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(values) + "\n" for values in lines), encoding="utf-8")
    return path


def rows(path: Path, right: Any = "any") -> list[Any]:
    columns = {"question": "question"}
    source = Source(path=path, columns=columns, with_targets=True, bad=BadRows())
    return [record.row for record in ROWS.records(JudgeCandidatesConfig(right=right), source)]


def test_a_line_is_a_row(tmp_path: Path) -> None:
    path = table(tmp_path / "a.jsonl", LINE, {**LINE, "question": "", "right": [0, 0], "candidates": '["a", "b"]'})
    assert rows(path) == [
        JudgeRow(passage="the river", question="what is it", candidates=("a river", "a house"), right=(True, False)),
        JudgeRow(passage="the river", question="", candidates=("a", "b"), right=(False, False)),
    ]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"candidates": []}, "needs a list of texts, at least 1"),
        ({"candidates": [1, 2]}, "needs a list of texts"),
        ({"candidates": "a river"}, "candidates is no list"),
        ({"right": [True]}, "for 2 candidates: needs true or false for each"),
        ({"right": ["yes", "no"]}, "needs true or false for each"),
        ({"right": [False, False]}, "none of 2 candidates is right"),
        ({"passage": " "}, "passage is empty"),
    ],
)
def test_a_line_that_cannot_be_is_refused(change: dict[str, Any], reason: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=reason):
        rows(table(tmp_path / "a.jsonl", {**LINE, **change}), right="one")


@pytest.mark.parametrize("right", ["any", "one"])
def test_a_recipe_runs_from_a_table_to_answers(right: str, tmp_path: Path, tiny_bert: Path) -> None:
    path = table(tmp_path / "a.jsonl", *[{**LINE, "passage": f"the river {n}"} for n in range(12)])
    text = f"""
    model = {{ name = "{tiny_bert}" }}
    adapter = {{ rank = 2 }}
    task = {{ kind = "judge_candidates", right = "{right}", max_length = 200 }}
    data = {{ train = ["{path}"], columns = {{ question = "question" }}, development_fraction = 0.3 }}
    train = {{ epochs = 1, batch_size = 4 }}
    """
    run = run_recipe(Recipe.from_toml(text), folder=tmp_path / "run")
    scores = evaluate(run.folder / "task", Source(path=path, bad=BadRows()))
    assert scores.rows == 12
    assert 0 <= scores.scores["accuracy"] <= 100
    first = next(predict(run.folder / "task", Source(path=path, bad=BadRows())))
    if right == "one":
        assert first["prediction"] == LINE["candidates"][first["choice"]]
    else:
        assert len(first["prediction"]) == len(first["probability"]) == 2
