"""The sweep: complete, resumed after an interruption, and its recommendation."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from reader_parts import write_reader
from test_evaluate import PARAGRAPHS

from cypher.apps.qa import QuestionAnswering
from cypher.apps.qa.tune import MeasuredSetting, Setting, TuneReport, offered_precisions, recommend, tune
from cypher.errors import ConfigError, DataError

SWEEP: dict[str, Any] = {"top_k_retriever": (1, 3), "words": (5, 40), "precisions": ("fp32",), "limit": 4}


@pytest.fixture(scope="module")
def qa(tmp_path_factory: pytest.TempPathFactory, tiny_bert: Path) -> QuestionAnswering:
    folder = write_reader(tmp_path_factory.mktemp("reader"), tiny_bert)
    return QuestionAnswering("unused", model=str(tiny_bert), reader=folder)


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory, qa: QuestionAnswering) -> tuple[Path, TuneReport]:
    """A sweep that is interrupted after two questions, and ended in a second sitting."""
    folder = tmp_path_factory.mktemp("sweep")

    def interrupt(what: str, done: int, total: int) -> None:
        if (what, done) == ("measuring", 2):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tune(qa, PARAGRAPHS, folder=folder, progress=interrupt, **SWEEP)
    path = folder / "measurements.jsonl"
    first = path.read_text()
    assert first.count("\n") == 2
    path.write_text(first + '{"id": "cut o')
    report = tune(qa, PARAGRAPHS, folder=folder, **SWEEP)
    assert path.read_text().startswith(first)
    return folder, report


def test_every_setting_meets_every_question_once(swept: tuple[Path, TuneReport]) -> None:
    folder, report = swept
    rounds = [json.loads(line) for line in (folder / "measurements.jsonl").read_text().splitlines()]
    names = [f"{k} × {words} words, fp32" for words in (5, 40) for k in (1, 3)]
    assert len({row["id"] for row in rounds}) == len(rounds) == 4 == report.n_questions
    assert all(sorted(row["settings"]) == sorted(names) for row in rounds)
    # The order rotates, so that none is always the first.
    assert len({next(iter(row["settings"])) for row in rounds}) > 1
    for measured in report.settings:
        asked = [row["settings"][measured.setting.name] for row in rounds]
        assert measured.f1 == pytest.approx(25 * sum(row["f1"] for row in asked))
        seconds = sorted(row["seconds"] for row in asked)
        assert measured.latency_ms == pytest.approx(500 * (seconds[1] + seconds[2]))
    latencies = [measured.latency_ms for measured in report.settings]
    assert latencies == sorted(latencies)
    assert report.figure.read_bytes().startswith(b"\x89PNG")
    content = json.loads(json.dumps(report.to_dict()))
    assert list(content["settings"][0]) == [
        *("top_k_retriever", "words", "precision", "f1", "exact", "latency_ms", "on_front")
    ]
    assert content["recommended"] in [
        {key: row[key] for key in ("top_k_retriever", "words", "precision")} for row in content["settings"]
    ]


def test_a_finished_sweep_measures_nothing_again(swept: tuple[Path, TuneReport], qa: QuestionAnswering) -> None:
    folder, report = swept
    before = (folder / "measurements.jsonl").read_bytes()
    told: list[str] = []
    again = tune(qa, PARAGRAPHS, folder=folder, progress=lambda what, *_: told.append(what), **SWEEP)
    assert (again, told) == (report, [])
    assert (folder / "measurements.jsonl").read_bytes() == before


@pytest.mark.parametrize("change", [{"limit": 5}, {"words": (5, 41)}, {"top_k_retriever": (1,)}])
def test_another_sweep_is_refused(
    swept: tuple[Path, TuneReport], qa: QuestionAnswering, change: dict[str, Any]
) -> None:
    with pytest.raises(ConfigError, match="holds another sweep; name another --out"):
        tune(qa, PARAGRAPHS, folder=swept[0], **{**SWEEP, **change})


@pytest.mark.parametrize("changed", ["reader", "model"])
def test_models_trained_again_are_another_sweep(make_tiny_bert: Any, tmp_path: Path, changed: str) -> None:
    model = make_tiny_bert(seed=5)
    reader = write_reader(tmp_path / "reader", model)
    qa = QuestionAnswering("unused", model=str(model), reader=reader)
    few = {**SWEEP, "top_k_retriever": (1,), "words": (40,), "limit": 1}
    tune(qa, PARAGRAPHS, folder=tmp_path / "sweep", **few)
    tune(QuestionAnswering("unused", model=str(model), reader=reader), PARAGRAPHS, folder=tmp_path / "sweep", **few)
    if changed == "model":
        shutil.copyfile(make_tiny_bert(seed=6) / "model.safetensors", model / "model.safetensors")
    else:
        write_reader(reader, make_tiny_bert(seed=5), max_length=63)
    with pytest.raises(ConfigError, match="holds another sweep"):
        tune(QuestionAnswering("unused", model=str(model), reader=reader), PARAGRAPHS, folder=tmp_path / "sweep", **few)


def test_damaged_measurements_and_empty_sweeps(tmp_path: Path, qa: QuestionAnswering) -> None:
    with pytest.raises(ConfigError, match="no setting to measure"):
        tune(qa, PARAGRAPHS, folder=tmp_path, **{**SWEEP, "words": ()})
    (tmp_path / "measurements.jsonl").write_text("not json\n")
    with pytest.raises(DataError, match=r"measurements\.jsonl is damaged"):
        tune(qa, PARAGRAPHS, folder=tmp_path, **SWEEP)


@pytest.mark.parametrize(
    ("measured", "expected"),
    [
        ([(80.0, 100.0), (79.0, 50.0), (78.9, 10.0)], 1),
        ([(80.0, 100.0), (78.0, 50.0)], 0),
        ([(80.0, 30.0), (81.0, 20.0)], 1),
        ([(0.0, 5.0)], 0),
    ],
)
def test_the_fastest_within_a_point_of_the_best_is_recommended(
    measured: list[tuple[float, float]], expected: int
) -> None:
    settings = [
        MeasuredSetting(
            setting=Setting(top_k_retriever=number + 1, words=100, precision="fp32"),
            f1=f1,
            exact=0.0,
            latency_ms=latency,
            on_front=True,
        )
        for number, (f1, latency) in enumerate(measured)
    ]
    assert recommend(settings) == settings[expected].setting


def test_offered_precisions_can_be_packed() -> None:
    assert "fp32" in offered_precisions()
