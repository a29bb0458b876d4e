"""``cypher evaluate`` and ``cypher predict`` as they are typed."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import pytest

from cypher.cli.app import run

ANIMALS = ("cat", "dog", "cow", "hen", "owl")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, tiny_bert: Path) -> Path:
    """The folder of a run that tells animals from people."""
    folder = tmp_path_factory.mktemp("animals")
    lines = [f"the {animal} was number {n},{'beast'}" for n in range(6) for animal in ANIMALS]
    lines += [f"the king was number {n},{'man'}" for n in range(30)]
    (folder / "data.csv").write_text("text,label\n" + "\n".join(lines) + "\n")
    (folder / "animals.toml").write_text(
        f'[model]\nname = "{tiny_bert}"\n[task]\nkind = "classify"\nmax_length = 32\n[precision]\ncompute = "fp32"\n'
        f'[data]\ntrain = ["{folder / "data.csv"}"]\ndevelopment_fraction = 0.2\n[train]\nepochs = 2\nbatch_size = 8\n'
        "learning_rate = 2e-3\n"
    )
    assert run(["train", str(folder / "animals.toml"), "--runs", str(folder / "runs")]) == 0
    return folder / "runs" / "animals"


def test_evaluate(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "new.tsv"
    file.write_text("sentence\tlabel\nthe cat was here\tbeast\nthe king was here\tman\n")
    arguments = ["evaluate", str(trained), str(file), "--column", "text=sentence"]
    capsys.readouterr()
    assert run([*arguments, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["kind"], found["rows"], found["skipped_rows"]) == ("classify", 2, 0)
    assert set(found["scores"]) == {"accuracy", "macro_f1", "micro_f1", "mcc"}
    assert run(arguments) == 0
    out = capsys.readouterr().out
    assert f"accuracy\t{found['scores']['accuracy']:.2f}" in out


def test_predict_writes_a_file_or_nothing(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, target = tmp_path / "new.csv", tmp_path / "out.jsonl"
    file.write_text("n,text\n1,the cät was here\n2,\n3,the king\n", encoding="utf-8")
    target.write_text("before")
    capsys.readouterr()
    assert run(["predict", str(trained), str(file), "--output", str(target)]) == 2
    assert "line 3: text is empty" in capsys.readouterr().err
    assert target.read_text() == "before"
    assert run(["predict", str(trained), str(file), "--output", str(target), "--skip-bad-rows"]) == 0
    assert capsys.readouterr().err == "1 rows could not be read and were left out\n"
    rows = [json.loads(line) for line in target.read_text(encoding="utf-8").splitlines()]
    assert [(row["n"], row["text"]) for row in rows] == [("1", "the cät was here"), ("3", "the king")]
    assert all(row["prediction"] in ("beast", "man") and 0.5 <= row["probability"] <= 1 for row in rows)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new.csv", "out.jsonl"]


def test_predict_reads_stdin_and_writes_stdout(
    trained: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    given = '{"text": "the king", "x": {"ü": null}}\n{"text": "the owl"}\n'
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(given.encode())))
    capsys.readouterr()
    assert run(["predict", str(trained), "-"]) == 0
    out, err = capsys.readouterr()
    rows = [json.loads(line) for line in out.splitlines()]
    assert rows[0]["x"] == {"ü": None}
    assert [row["text"] for row in rows] == ["the king", "the owl"]
    assert (err, out.isascii()) == ("", True)


def squad(path: Path) -> Path:
    context = "the king was in the house by the river"
    question = {"id": "1", "question": "who was in the house", "answers": [{"text": "king", "answer_start": 4}]}
    impossible = {"id": "2", "question": "what is a mill", "answers": [], "is_impossible": True}
    paragraphs = [{"context": context, "qas": [question, impossible]}]
    path.write_text(json.dumps({"data": [{"title": "a", "paragraphs": paragraphs}]}))
    return path


def test_a_reader_is_evaluated_and_asked_too(
    tmp_path: Path, tiny_bert: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = tmp_path / "reader.toml"
    recipe.write_text(
        f'[model]\nname = "{tiny_bert}"\n[precision]\ncompute = "fp32"\n'
        "[task]\nmax_length = 64\nstride = 12\nmax_question_tokens = 20\n"
        f'[data]\ntrain = ["{squad(tmp_path / "a.json")}"]\ndevelopment = ["{squad(tmp_path / "b.json")}"]\n'
        "[train]\nepochs = 1\n"
    )
    assert run(["train", str(recipe), "--runs", str(tmp_path)]) == 0
    capsys.readouterr()
    assert run(["evaluate", str(tmp_path / "reader"), str(tmp_path / "b.json"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["rows"], found["kind"]) == (2, "extract_span")
    assert {"f1", "exact", "f1_answerable", "f1_unanswerable"} <= set(found["scores"])
    table = tmp_path / "asked.jsonl"
    table.write_text('{"question": "who was in the house", "context": "the king was in the house", "n": 1}\n')
    for file in (tmp_path / "b.json", table):
        assert run(["predict", str(tmp_path / "reader"), str(file)]) == 0
        for line in capsys.readouterr().out.splitlines():
            row = json.loads(line)
            assert {"question", "context", "prediction", "probability", "start", "end"} <= set(row)
            if row["prediction"] is not None:
                assert row["context"][row["start"] : row["end"]] == row["prediction"]
    assert run(["evaluate", str(tmp_path / "reader"), str(table)]) == 2
    assert "needs SQuAD's JSON" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["evaluate", "runs/absent", "x.csv"], 2, "there is no run in runs/absent"),
        (["predict", "minilm-qa", "absent.csv"], 2, "absent.csv"),
        (["predict", "minilm-qa", "{folder}", "--column", "text"], 2, "needs FIELD=COLUMN"),
    ],
)
def test_what_cannot_work_is_one_line(
    arguments: list[str], code: int, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([argument.format(folder=tmp_path) for argument in arguments]) == code
    out, err = capsys.readouterr()
    assert (out, len(err.splitlines())) == ("", 1)
    assert said in err


@pytest.mark.parametrize("command", ["evaluate", "predict"])
def test_help_shows_an_example(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([command, "--help"]) == 0
    assert f"cypher {command} runs/banking77_intents" in " ".join(capsys.readouterr().out.split())
