"""``cypher superglue``: tables, checks and submissions as they are typed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from superglue_files import write_benchmark

from cypher.apps.superglue.predictions import Majority
from cypher.apps.superglue.submit import submit
from cypher.cli.app import run


def test_the_table_has_the_leaderboard_without_any_run(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert run(["superglue", "table", "--html", str(tmp_path / "table.html")]) == 0
    out = capsys.readouterr().out
    assert [line.split("\t")[:2] for line in out.splitlines()[:6]] == [
        ["system", "score"],
        ["ERNIE 3.0 12B", "90.6"],
        ["DeBERTa 3.1B", "90.3"],
        ["human", "89.8"],
        ["T5-11B", "89.3"],
        ["CBOW", "44.5"],
    ]
    assert "human" in (tmp_path / "table.html").read_text(encoding="utf-8")
    assert run(["superglue", "table", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert rows[-1]["metrics"]["cb"] == {"f1": 49.0, "accuracy": 71.2}
    assert "arXiv 2110.07904" in rows[-1]["source"]


def test_an_archive_is_checked_alone_and_beside_its_rows(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    data = write_benchmark(tmp_path / "data")
    done = submit(tmp_path / "a.zip", [data], lambda task, rows: Majority(label=(*task.labels, None)[0]).predict(rows))
    assert run(["superglue", "check", str(done.path), "--data", str(data)]) == 0
    assert capsys.readouterr().out == f"{done.path} is valid\n"
    assert run(["superglue", "check", str(done.path), "--json"]) == 1
    out, err = capsys.readouterr()
    problems = json.loads(out)["problems"]
    assert "CB.jsonl has 6 lines; needs one for each idx from 0 to 249 of the test file" in problems
    assert err == f"error: {done.path} has {len(problems)} problems; see the lines above\n"


def test_two_tasks_are_learnt_tabled_and_packed(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, tiny_bert: Path
) -> None:
    data, output = write_benchmark(tmp_path / "data"), tmp_path / "run"
    common = ("--data", str(data), "--model", str(tiny_bert), "--profile", "quick", "--seeds", "3")
    assert run(["superglue", "run", "--tasks", "wic,COPA", *common, "--output", str(output), "--json"]) == 0
    out, err = capsys.readouterr()
    scores = json.loads(out)
    assert err == ""
    assert list(scores["tasks"]) == ["copa", "wic"]
    assert scores["tasks"]["copa"]["seeds"].keys() == {"3"}
    assert run(["superglue", "run", "--tasks", "wic,COPA", *common, "--output", str(output)]) == 0
    out, err = capsys.readouterr()
    assert out.splitlines()[0] == "task\tmetric\tvalue\tmajority"
    assert out.splitlines()[-1] == str(output)
    assert err == ""
    assert run(["superglue", "table", str(output)]) == 0
    assert "with lora" in capsys.readouterr().out
    assert run(["superglue", "submit", str(output), "--output", str(tmp_path / "submission.zip")]) == 0
    out, err = capsys.readouterr()
    assert "CB: not in the run, the majority answers 6 rows" in err
    assert run(["superglue", "check", str(tmp_path / "submission.zip"), "--data", str(data)]) == 0


def test_a_task_that_fails_makes_the_exit_code_1(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, tiny_bert: Path
) -> None:
    data = write_benchmark(tmp_path / "data")
    (data / "CB" / "val.jsonl").unlink()
    arguments = (
        "--data",
        str(data),
        "--model",
        str(tiny_bert),
        "--profile",
        "quick",
        "--output",
        str(tmp_path / "run"),
    )
    assert run(["superglue", "run", "--tasks", "cb,copa", *arguments, "--seeds", "1", "--json"]) == 1
    out, err = capsys.readouterr()
    scores = json.loads(out)
    assert list(scores["tasks"]) == ["copa"]
    assert "CB has no val.jsonl" in scores["failed"]["cb"]
    assert err == "error: 1 of 2 tasks failed: cb\n"
    assert run(["superglue", "run", "--tasks", "cb,copa", *arguments, "--seeds", "1"]) == 1
    assert capsys.readouterr().err.startswith("cb failed: ")


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("run", "--tasks", "qnli", "--data", "x"), "error: no task is called 'qnli': needs all, or some of boolq"),
        (("run", "--seeds", "1,1", "--data", "x"), "error: --seeds 1,1: needs whole numbers that differ"),
        (("run", "--seeds", "a", "--data", "x"), "error: --seeds a: needs whole numbers"),
        (("run", "--profile", "slow", "--data", "x"), "error: Invalid value for '--profile'"),
        (("submit", "nowhere"), "error: nowhere/scores.json cannot be read"),
        (("table", "nowhere"), "error: nowhere/scores.json cannot be read"),
        (("check", "nowhere.zip"), "error: nowhere.zip cannot be read as a zip"),
        (("check", "nowhere.zip", "--split", "train"), "error: Invalid value for '--split'"),
    ],
)
def test_a_wrong_call_is_one_line(capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], line: str) -> None:
    assert run(["superglue", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(line)
    assert err.count("\n") == 1
