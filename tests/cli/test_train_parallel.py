"""``cypher train --parallel``: one command, several processes, one voice."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cypher.cli.app import run

TABLE = "".join(
    json.dumps({"text": f"{word} number {n}", "label": label}) + "\n"
    for n in range(24)
    for word, label in (("river", "water"), ("mill", "wheel"))
)
# A core each: with more threads than cores they wait for each other most of the time.
PARALLEL = ["--parallel", "dp=2", "--threads", "2"]


@pytest.fixture
def recipe(tmp_path: Path, tiny_bert: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Some twenty steps on a tiny encoder."""
    (tmp_path / "rows.jsonl").write_text(TABLE)
    path = tmp_path / "words.toml"
    path.write_text(
        f'[model]\nname = "{tiny_bert}"\n[precision]\ncompute = "fp32"\n[task]\nkind = "classify"\nmax_length = 16\n'
        f'[data]\ntrain = ["{tmp_path / "rows.jsonl"}"]\ndevelopment_fraction = 0.2\n'
        "[train]\nepochs = 2\nbatch_size = 4\nevaluations_per_epoch = 1\n"
    )
    return path


def losses(folder: Path) -> list[float]:
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [row["loss"] for row in rows if "loss" in row]


def test_two_processes_learn_what_one_does_and_speak_as_one(
    recipe: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    assert run(["train", str(recipe), "--runs", str(tmp_path / "one"), "--json"]) == 0
    one = json.loads(capfd.readouterr().out)
    assert run(["train", str(recipe), "--runs", str(tmp_path / "two"), "--json", *PARALLEL]) == 0
    out, err = capfd.readouterr()
    two = json.loads(out)
    assert err == ""
    assert two["scores"] == pytest.approx(one["scores"])
    assert losses(tmp_path / "two" / "words") == pytest.approx(losses(tmp_path / "one" / "words"), abs=1e-5)


def test_a_recipe_starts_its_processes_and_a_failure_is_one_line(
    recipe: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    arguments = ["train", str(recipe), "--runs", str(tmp_path), "--set", "parallel.dp=2", "--threads", "2"]
    assert run([*arguments, "--set", "task.max_length=9000"]) == 2
    out, err = capfd.readouterr()
    assert out == ""
    (line,) = err.splitlines()
    assert line.startswith(("error: rank 0: task.max_length = 9000", "error: rank 1: task.max_length = 9000"))


def test_a_plan_that_cannot_work_is_refused_before_anything_starts(
    recipe: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    arguments = ["train", str(recipe), "--runs", str(tmp_path), "--parallel"]
    for plan, told in (
        ("dp=3", "train.batch_size = 4 cannot be cut into 3 equal parts"),
        ("zero=3", "zero = 3 divides over copies, and dp = 1 is one"),
        ("ddp=2", "unknown key ddp; did you mean dp?"),
    ):
        assert run([*arguments, plan]) == 2
        assert told in capfd.readouterr().err
    assert not (tmp_path / "words").exists()


def test_the_same_recipe_runs_under_torchrun(recipe: Path, tmp_path: Path):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "cypher"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    arguments = ["train", str(recipe), "--runs", str(tmp_path), "--json", "--set", "parallel.dp=2"]
    done = subprocess.run([*command, *arguments], capture_output=True, text=True, env=environment, timeout=120)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["folder"] == str(tmp_path / "words")


def test_ctrl_c_keeps_a_checkpoint_and_the_same_command_goes_on(recipe: Path, tmp_path: Path):
    arguments = ["train", str(recipe), "--runs", str(tmp_path), *PARALLEL, "--set", "train.epochs=400"]
    metrics = tmp_path / "words" / "metrics.jsonl"
    process = subprocess.Popen([sys.executable, "-m", "cypher", *arguments], stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not (metrics.exists() and "loss" in metrics.read_text()):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    steps = len(losses(tmp_path / "words"))
    (line,) = err.splitlines()
    told = re.fullmatch(rf"error: interrupted after step {steps} of (\d+); run the same command again to go on", line)
    assert told is not None, line
    again = subprocess.Popen([sys.executable, "-m", "cypher", *arguments], stderr=subprocess.PIPE, text=True)
    assert again.stderr is not None
    assert again.stderr.readline() == f"resuming after step {steps} of {told[1]}\n"
    again.send_signal(signal.SIGINT)
    again.communicate(timeout=60)
    assert again.returncode == 130


def ranks_of(process: subprocess.Popen[str]) -> list[int]:
    """Processes that a launcher has started, by their ids."""
    found = subprocess.run(["ps", "--ppid", str(process.pid), "-o", "pid=,args="], capture_output=True, text=True)
    return [int(line.split()[0]) for line in found.stdout.splitlines() if " train " in line]


@pytest.mark.slow
def test_a_process_that_is_killed_is_started_again_and_the_run_ends_as_if_it_had_not_been(
    recipe: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    """With dropout, which a step draws from its number alone."""
    shared = ["train", str(recipe), "--set", "train.epochs=6", "--set", "train.checkpoint_seconds=0.001"]
    shared += ["--set", "model.dropout=0.1", *PARALLEL]
    assert run([*shared, "--runs", str(tmp_path / "whole")]) == 0
    capfd.readouterr()
    metrics = tmp_path / "killed" / "words" / "metrics.jsonl"
    arguments = [*shared, "--max-restarts", "2", "--runs", str(tmp_path / "killed")]
    process = subprocess.Popen([sys.executable, "-m", "cypher", *arguments], stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not (metrics.exists() and metrics.read_text().count("loss") >= 12):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.01)
    os.kill(ranks_of(process)[-1], signal.SIGKILL)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert "all processes were started again" in err
    assert "resuming after step" in err
    assert losses(tmp_path / "killed" / "words") == pytest.approx(losses(tmp_path / "whole" / "words"), abs=1e-6)
