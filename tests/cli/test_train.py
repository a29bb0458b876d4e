"""``cypher train``: trains, resumes, and says in one line what is wrong."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from cypher.cli import train as command
from cypher.cli.app import run

YEARS = range(1900, 1930)


@pytest.fixture
def recipe(tmp_path: Path, tiny_bert: Path) -> Path:
    """A recipe of some fourteen steps on a tiny encoder."""
    articles = [
        {
            "title": f"Mill {year}",
            "paragraphs": [
                {
                    "context": f"The mill was built in {year}.",
                    "qas": [
                        {
                            "id": f"q{year}",
                            "question": "When was the mill built?",
                            "answers": [{"text": str(year), "answer_start": 22}],
                        }
                    ],
                }
            ],
        }
        for year in YEARS
    ]
    (tmp_path / "squad.json").write_text(json.dumps({"data": articles}))
    path = tmp_path / "mills.toml"
    path.write_text(
        f'[model]\nname = "{tiny_bert}"\n[adapter]\nmethod = "lora"\nrank = 2\n[precision]\ncompute = "fp32"\n'
        f"[task]\nmax_length = 64\nstride = 12\nmax_question_tokens = 20\n"
        f'[data]\ntrain = ["{tmp_path / "squad.json"}"]\ndevelopment_fraction = 0.3\n'
        "[train]\nepochs = 2\nbatch_size = 3\n"
    )
    return path


def printed(capsys: pytest.CaptureFixture[str]) -> tuple[str, list[str]]:
    out, err = capsys.readouterr()
    return out, err.splitlines()


def metrics(folder: Path) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [
        {**row.get("scores", {}), **{key: row[key] for key in row.keys() - {"scores", "tokens_per_second"}}}
        for row in rows
    ]


def test_an_interrupted_run_is_resumed_and_ends_as_if_it_had_not_been(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(["train", str(recipe), "--runs", str(tmp_path / "whole"), "--json", "--threads", "1"]) == 0
    out, err = printed(capsys)
    whole = json.loads(out)
    total = whole["steps"]
    assert (whole["folder"], set(whole)) == (
        str(tmp_path / "whole" / "mills"),
        {"folder", "steps", "seconds", "scores", "skipped_rows"},
    )
    assert err == []  # progress is for a terminal; metrics.jsonl has it all
    assert (tmp_path / "whole" / "mills" / "reader" / "head_config.json").is_file()

    arguments = ["train", str(recipe), "--runs", str(tmp_path / "parts"), "--threads", "1"]
    with monkeypatch.context() as patch:
        # Ctrl-C, at a step that is known.
        patch.setattr(command._Watcher, "stepped", interrupted_at(5))
        assert run(arguments) == 130
    out, err = printed(capsys)
    assert (out, err[-1]) == ("", f"error: interrupted after step 5 of {total}; run the same command again to go on")

    assert run([*arguments, "--json"]) == 0
    out, err = printed(capsys)
    assert err == [f"resuming after step 5 of {total}"]
    parts = json.loads(out)
    assert parts["scores"] == pytest.approx(whole["scores"])
    for one, other in zip(metrics(tmp_path / "parts" / "mills"), metrics(tmp_path / "whole" / "mills"), strict=True):
        assert one == pytest.approx(other)

    assert run(arguments) == 0
    out, err = printed(capsys)
    assert err == [f"this run is finished: {total} steps"]
    lines = out.splitlines()
    assert lines[0] == "score\tvalue"
    assert f"f1\t{whole['scores']['f1']:.2f}" in lines
    assert lines[-1] == str(tmp_path / "parts" / "mills")


def interrupted_at(last: int) -> Any:
    def stepped(self: Any, *, step: int, loss: float, tokens_per_second: float) -> None:
        self.step = step
        if step == last:
            raise KeyboardInterrupt

    return stepped


def test_changes_make_another_run(recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["train", str(recipe), "--runs", str(tmp_path), "--set", "train.epochs=1", "--set", "data.limit=6"]
    assert run([*arguments, "--set", "name=quick"]) == 0
    assert "f1\t" in printed(capsys)[0]
    assert "epochs = 1" in (tmp_path / "quick" / "recipe.toml").read_text()
    # The same name with other values is another run in the way.
    assert run(["train", str(recipe), "--runs", str(tmp_path), "--set", "name=quick"]) == 2
    assert "holds a run of another recipe" in printed(capsys)[1][-1]


def test_a_model_that_is_fetched_first_has_a_bar(recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: set[str] = set()

    @contextmanager
    def bars(*, of_bytes: bool) -> Iterator[Callable[[str, int, int], None]]:
        yield lambda what, done, total: told.add(what)

    def resolve(name: str, *, progress: Callable[..., None] | None = None, **options: object) -> Path:
        if progress is not None:
            progress("fetching", 1, 2)
        return Path(name)

    monkeypatch.setattr("cypher.tasks.run.resolve", resolve)
    monkeypatch.setattr(command, "progress_bars", bars)
    arguments = ["train", str(recipe), "--runs", str(tmp_path), "--set", "train.epochs=1", "--set", "data.limit=4"]
    assert run(arguments) == 0
    assert told == {"fetching"}


def test_the_bar_shows_evaluations_above_it(capsys: pytest.CaptureFixture[str]) -> None:
    with command._Bar() as bar:
        bar.started(total_steps=10, first_step=4)
        bar.stepped(step=5, loss=1.25, tokens_per_second=3000.0)
        bar.evaluated(step=5, scores={"f1": 12.0}, best=True)
        assert (bar.step, bar.total) == (5, 10)
    err = printed(capsys)[1]
    assert "resuming after step 4 of 10" in err
    assert "step 5: f1 12.00 (best so far)" in err


def test_the_schema_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["train", "--print-schema"]) == 0
    schema = json.loads(printed(capsys)[0])
    assert {"model", "adapter", "task", "data", "train"} <= set(schema["properties"])
    assert schema["additionalProperties"] is False


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ((), "error: no recipe was given: needs a TOML file"),
        (("nowhere.toml",), "error: recipe nowhere.toml cannot be read"),
        (
            ("{recipe}", "--set", "train.epoch=1"),
            "error: {recipe}: unknown key train.epoch; did you mean train.epochs?",
        ),
        (("{recipe}", "--set", "train.epochs"), "error: --set 'train.epochs': needs section.key=value"),
        (("{recipe}", "--set", "train.epochs=0"), "error: {recipe}: train.epochs = 0; "),
        (("{recipe}", "--set", "model.name=minlm"), "error: model 'minlm' (did you mean 'minilm'?)"),
        (("{recipe}", "--set", "model.name=./none"), "error: there is no folder ./none"),
        (("{recipe}", "--threads", "0"), "error: Invalid value for '--threads'"),
        (("{recipe}", "--set", 'data.train=["no-such-data"]'), "error: "),
    ],
)
def test_a_wrong_call_is_one_line(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], line: str
) -> None:
    given = [argument.replace("{recipe}", str(recipe)) for argument in arguments]
    assert run(["train", *given, "--runs", str(tmp_path / "runs")]) == 2
    out, err = printed(capsys)
    assert (out, len(err)) == ("", 1)
    assert err[0].startswith(line.replace("{recipe}", str(recipe)))
