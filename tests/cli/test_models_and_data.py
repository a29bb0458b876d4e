from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from cypher.cli.app import run
from cypher.errors import ModelError
from cypher.hub import resolve


def test_data_sets_are_listed_with_what_they_are_checked_by(capsys: pytest.CaptureFixture[str]) -> None:
    for row in printed_json(capsys, "data", "list")["data"]:
        assert row["source"].endswith(row["revision"])
        assert sum(file["bytes"] for file in row["files"]) == row["bytes"]
        assert all(len(file["sha256"]) == 64 for file in row["files"])


def printed_json(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    assert run([*arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.fixture
def minilm() -> Path:
    try:
        return resolve("minilm")
    except ModelError as error:
        pytest.skip(f"minilm is not here: {error}")


@pytest.mark.real_weights
def test_fetch_prints_the_folder_and_list_says_it_is_here(minilm: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["models", "fetch", "minilm"]) == 0
    assert capsys.readouterr().out == f"{minilm}\n"
    assert printed_json(capsys, "models", "fetch", "minilm") == {
        "name": "minilm",
        "path": str(minilm),
        "bytes": 91567913,
    }
    listed = {row["name"]: row for row in printed_json(capsys, "models", "list")["models"]}
    assert listed["minilm"]["path"] == str(minilm)
    assert printed_json(capsys, "models", "info", str(minilm))["bytes"] == 91567913


@pytest.mark.real_weights
def test_an_exported_folder_loads_in_transformers_and_computes_the_same(
    minilm: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    transformers = pytest.importorskip("transformers")
    import torch

    assert run(["models", "export", "minilm", str(tmp_path / "out")]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'out'}\n"
    inputs = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")(
        ["Paris is in France.", "two words"], padding=True, return_tensors="pt"
    )
    with torch.inference_mode():
        ours, theirs = (
            transformers.AutoModel.from_pretrained(folder)(**inputs).last_hidden_state
            for folder in (tmp_path / "out", minilm)
        )
    assert torch.equal(ours, theirs)
    capsys.readouterr()
    assert run(["models", "export", "minilm", str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err == f"error: {tmp_path / 'out'} is not empty; give a new folder\n"


@pytest.mark.real_weights
def test_the_exported_reader_answers_in_transformers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    transformers = pytest.importorskip("transformers")
    import torch

    folder = tmp_path / "out"
    assert run(["models", "export", "minilm-qa", str(folder), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["transformers_class"] == "AutoModelForQuestionAnswering"
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    reader = transformers.AutoModelForQuestionAnswering.from_pretrained(folder)
    passage = "The fair of Kiel is held in June. Since 1977 it has been at the river."
    inputs = tokenizer("When is the fair held?", passage, return_tensors="pt")
    with torch.inference_mode():
        scores = reader(**inputs)
    start, end = scores.start_logits[0, 1:].argmax() + 1, scores.end_logits[0, 1:].argmax() + 1
    assert tokenizer.decode(inputs["input_ids"][0, start : end + 1]) in {"june", "in june"}


def test_the_matrix_gives_a_reason_for_every_no(capsys: pytest.CaptureFixture[str]) -> None:
    rows = printed_json(capsys, "models", "matrix")["matrix"]
    assert all(bool(row["reason"]) != row["ok"] for row in rows)
    asked = {"model": "bert", "adapter": "lora", "arrangement": "stack", "task": "extract_span"}
    assert {**asked, "ok": True, "reason": ""} in rows
    assert run(["models", "matrix"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "model\tadapter\tarrangement\ttask\tworks\treason"
    assert len(lines) == len(rows) + 1


def test_a_broken_data_file_is_named_by_list_and_doctor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CYPHER_DATA", str(tmp_path))
    monkeypatch.setenv("CYPHER_CACHE", str(tmp_path / "cache"))
    (tmp_path / "squadshifts").mkdir()
    (tmp_path / "squadshifts" / "new_wiki_v1.0.json.gz").write_bytes(gzip.compress(b"{}"))
    assert run(["data", "list"]) == 0
    printed = capsys.readouterr()
    assert "\tbroken\t" in printed.out.splitlines()[1]
    assert "new_wiki_v1.0.json.gz has sha256" in printed.err
    assert run(["doctor"]) == 1
    assert "problem: " in capsys.readouterr().err


@pytest.mark.real_data
def test_data_fetch_prints_where_the_sets_are(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import os

    folder = os.environ.get("CYPHER_DATA")
    if not folder:
        pytest.skip("CYPHER_DATA names no folder")
    monkeypatch.setenv("CYPHER_CACHE", str(tmp_path))
    monkeypatch.setenv("CYPHER_OFFLINE", "1")
    fetched = printed_json(capsys, "data", "fetch", "squadshifts/reddit", "cranfield")["fetched"]
    assert [Path(row["path"]).name.removesuffix(".gz") for row in fetched] == ["reddit_v1.0.json", "cranfield"]
    assert [row["licence"] for row in fetched] == ["CC-BY-4.0", "none stated"]


def test_a_cache_that_cannot_be_written_is_a_problem(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.delenv("CYPHER_DATA", raising=False)
    monkeypatch.setenv("CYPHER_CACHE", str(tmp_path / "file" / "cache"))
    assert run(["doctor", "--json"]) == 1
    (problem,) = json.loads(capsys.readouterr().out)["problems"]
    assert problem == f"{tmp_path / 'file' / 'cache'} cannot be written; set CYPHER_CACHE to a folder that can"
