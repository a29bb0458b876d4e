"""A run learns every task, keeps what is finished when another fails, and goes on where it was."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from superglue_files import write_benchmark

from cypher.apps.superglue import run as runner
from cypher.apps.superglue.benchmark import SCORED, TASKS, find_tasks
from cypher.apps.superglue.check_submission import check_archive
from cypher.apps.superglue.run import Plan, best_folder, predictor, run
from cypher.apps.superglue.settings import Settings
from cypher.apps.superglue.submit import split_rows, submit
from cypher.apps.superglue.table import table_rows
from cypher.config import Recipe
from cypher.errors import ConfigError

TINY = {key: Settings(max_length=160, epochs=1, batch_size=8, learning_rate=1e-3, patience=0,
                      start_from={"boolq": "multirc"}.get(key),
                      evaluations_per_epoch=int(key != "cb")) for key in SCORED}  # fmt: skip


@pytest.fixture(autouse=True)
def tiny_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """One pass over a few rows."""
    monkeypatch.setattr(runner, "settings_of", lambda key, profile: TINY[key])


def plan(tmp_path: Path, tiny_bert: Path, **changes: Any) -> Plan:
    values: dict[str, Any] = {
        "tasks": find_tasks("all"),
        "folders": [tmp_path / "data"],
        "model": str(tiny_bert),
        "adapter": "lora",
        "few_shot": False,
        "profile": "full",
        "seeds": [1, 2],
        "output": tmp_path / "run",
    }
    return Plan(**{**values, **changes})


def test_a_whole_run_is_scored_tabled_and_submitted(tmp_path: Path, tiny_bert: Path) -> None:
    data = write_benchmark(tmp_path / "data", train=30)
    told: list[str] = []
    scores = run(plan(tmp_path, tiny_bert), tell=told.append)
    assert scores["failed"] == {}
    assert set(scores["tasks"]) == set(TASKS)
    assert [line.split(":")[0] for line in told][:2] == ["MultiRC", "BoolQ"]
    assert scores == json.loads((tmp_path / "run" / "scores.json").read_text(encoding="utf-8"))
    assert isinstance(scores["score"], float)
    assert set(scores["tasks"]["cb"]["seeds"]) == {"1", "2"}
    assert set(scores["tasks"]["rte"]["seeds"]) == {"1"}
    assert (scores["tasks"]["cb"]["rows"]["train"], scores["tasks"]["cb"]["rows"]["choose"]) == (30, 0)
    assert set(scores["tasks"]["copa"]["standard_error"]) == {"accuracy"}
    assert scores["tasks"]["rte"]["standard_error"] is None
    recipe = Recipe.load(tmp_path / "run" / "boolq" / "seed-1" / "recipe.toml")
    assert recipe.train.start_from == str(tmp_path / "run" / "multirc" / "seed-1")
    ours = table_rows([tmp_path / "run"])[0]
    assert ours.score == pytest.approx(100 * scores["score"])

    done = submit(tmp_path / "submission.zip", [data], predictor(tmp_path / "run"))
    assert (done.notes, done.problems) == ([], [])
    assert check_archive(done.path, split_rows([data], "test")) == []


def test_what_was_predicted_when_it_was_learnt_is_predicted_again(tmp_path: Path, tiny_bert: Path) -> None:
    data = write_benchmark(tmp_path / "data")
    run(plan(tmp_path, tiny_bert, tasks=find_tasks("multirc,wic"), seeds=[1]))
    predict = predictor(tmp_path / "run")
    for key in ("multirc", "wic"):
        rows = split_rows([data], "val")[key]
        written = (tmp_path / "run" / key / "seed-1" / "predictions.jsonl").read_text(encoding="utf-8")
        from cypher.apps.superglue.submission import jsonl, submission_lines

        again = predict(TASKS[key], rows)
        assert again is not None
        assert jsonl(submission_lines(TASKS[key], rows, again)) == written
    assert predict(TASKS["cb"], split_rows([data], "val")["cb"]) is None


def test_a_task_that_fails_is_told_and_the_others_go_on(tmp_path: Path, tiny_bert: Path) -> None:
    write_benchmark(tmp_path / "data")
    (tmp_path / "data" / "CB" / "train.jsonl").unlink()
    with (tmp_path / "data" / "WiC" / "val.jsonl").open("a", encoding="utf-8") as file:
        file.write("not json\n")
    scores = run(plan(tmp_path, tiny_bert, tasks=find_tasks("cb,copa,wic"), seeds=[1]))
    assert set(scores["tasks"]) == {"copa"}
    assert "CB has no train.jsonl" in scores["failed"]["cb"]
    assert "val.jsonl, line 9 is not JSON" in scores["failed"]["wic"]
    assert scores["score"] is None


def test_what_is_finished_is_not_learnt_again(tmp_path: Path, tiny_bert: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_benchmark(tmp_path / "data")
    first = run(plan(tmp_path, tiny_bert, tasks=find_tasks("multirc"), seeds=[1]))
    stamp = (tmp_path / "run" / "multirc" / "seed-1" / "best.safetensors").stat().st_mtime_ns
    second = run(plan(tmp_path, tiny_bert, tasks=find_tasks("multirc,boolq"), seeds=[1]))
    assert (tmp_path / "run" / "multirc" / "seed-1" / "best.safetensors").stat().st_mtime_ns == stamp
    assert second["tasks"]["multirc"] == first["tasks"]["multirc"]
    shutil.rmtree(tmp_path / "run" / "multirc")
    third = run(plan(tmp_path, tiny_bert, tasks=find_tasks("boolq"), seeds=[1]))
    assert third["tasks"]["boolq"] == second["tasks"]["boolq"]
    assert third["tasks"]["multirc"] == first["tasks"]["multirc"]


def test_another_model_adapter_or_data_is_refused(tmp_path: Path, tiny_bert: Path) -> None:
    write_benchmark(tmp_path / "data")
    run(plan(tmp_path, tiny_bert, tasks=find_tasks("copa"), seeds=[1]))
    with pytest.raises(ConfigError, match=r"holds a run with adapter lora; choose another --output"):
        run(plan(tmp_path, tiny_bert, tasks=find_tasks("copa"), adapter="none"))
    write_benchmark(tmp_path / "data", train=40)
    again = run(plan(tmp_path, tiny_bert, tasks=find_tasks("copa"), seeds=[1]))
    assert "holds a run of another recipe or of other rows" in again["failed"]["copa"]


def test_a_second_process_in_the_same_folder_is_refused(tmp_path: Path, tiny_bert: Path) -> None:
    write_benchmark(tmp_path / "data")
    (tmp_path / "run").mkdir()
    with (
        FileLock(tmp_path / "run" / "run.lock"),
        pytest.raises(ConfigError, match=r"another process is running in .*run; .*choose another --output"),
    ):
        run(plan(tmp_path, tiny_bert))


def test_an_interrupted_task_goes_on_where_it_was(
    tmp_path: Path, tiny_bert: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_benchmark(tmp_path / "data", train=40)
    tasks = find_tasks("copa,wic")
    whole = run(plan(tmp_path, tiny_bert, tasks=tasks, seeds=[1], output=tmp_path / "whole"))
    seen: list[tuple[str, int]] = []

    def stop(what: str, done: int, total: int) -> None:
        seen.append((what, done))
        if what == "WiC seed-1" and done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(plan(tmp_path, tiny_bert, tasks=tasks, seeds=[1]), show=stop)
    seen.clear()
    again = run(plan(tmp_path, tiny_bert, tasks=tasks, seeds=[1]), show=lambda *what: seen.append(what[:2]))
    assert seen[0] == ("WiC seed-1", 2)
    assert {key: task["metrics"] for key, task in again["tasks"].items()} == {
        key: task["metrics"] for key, task in whole["tasks"].items()
    }


def test_diagnostics_need_their_task_and_labels(tmp_path: Path, tiny_bert: Path) -> None:
    write_benchmark(tmp_path / "data")
    failed = run(plan(tmp_path, tiny_bert, tasks=find_tasks("ax-g")))["failed"]
    assert failed["ax-g"] == "AX-g is answered by RTE, which is not learnt; add it to --tasks"


def test_every_weight_can_be_learnt_and_the_next_task_starts_afresh(tmp_path: Path, tiny_bert: Path) -> None:
    write_benchmark(tmp_path / "data")
    both = run(plan(tmp_path, tiny_bert, tasks=find_tasks("copa,wic"), seeds=[1], adapter="none"))
    alone = run(plan(tmp_path, tiny_bert, tasks=find_tasks("wic"), seeds=[1], adapter="none", output=tmp_path / "two"))
    assert both["failed"] == {}
    assert both["tasks"]["wic"]["metrics"] == alone["tasks"]["wic"]["metrics"]
    digest = [(tmp_path / name / "wic" / "seed-1" / "best.safetensors").read_bytes() for name in ("run", "two")]
    assert digest[0] == digest[1]


def test_the_best_seed_is_the_one_that_was_chosen_by_other_rows(tmp_path: Path) -> None:
    for seed, chosen in ((1, 0.5), (2, 0.8), (3, 0.6)):
        folder = tmp_path / "cb" / f"seed-{seed}"
        folder.mkdir(parents=True)
        (folder / "scores.json").write_text(json.dumps({"chosen": chosen, "metrics": {}}), encoding="utf-8")
    found = best_folder(tmp_path, "cb")
    assert found is not None
    assert found.name == "seed-2"
    assert best_folder(tmp_path, "rte") is None
