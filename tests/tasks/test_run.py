"""A recipe runs from files to a reader that answers, with and without an adapter."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from filelock import FileLock

from cypher.config import ParallelPlan, PrecisionConfig, Recipe
from cypher.data.readers import read_squad
from cypher.errors import ConfigError, DataError
from cypher.tasks import run as module
from cypher.tasks.reader_folder import load_reader
from cypher.tasks.run import run_recipe
from cypher.tasks.span_rows import held_out, span_rows


def squad_file(path: Path, n_articles: int = 12) -> Path:
    """Paragraphs that each say where a creature lives, two an article."""
    articles = []
    for article in range(n_articles):
        paragraphs = []
        for place in range(2):
            context = f"the animal number {article} lives in house {place * 50 + article} near the river"
            answer = f"house {place * 50 + article}"
            question = {
                "id": f"{article}-{place}",
                "question": f"where does number {article} live",
                "answers": [{"text": answer, "answer_start": context.index(answer)}],
            }
            paragraphs.append({"context": context, "qas": [question]})
        articles.append({"title": f"article {article}", "paragraphs": paragraphs})
    path.write_text(json.dumps({"version": "1.1", "data": articles}), encoding="utf-8")
    return path


def recipe(data: Path, model: Path, **sections: str) -> Recipe:
    text = f"""
    [model]
    name = "{model}"
    [data]
    train = ["{data}"]
    development_fraction = 0.2
    unanswerable = 0.5
    [train]
    epochs = 2
    batch_size = 4
    [precision]
    compute = "fp32"
    """
    return Recipe.from_toml(text + "".join(sections.values()), name="tiny")


ADAPTERS = {
    "lora": "[adapter]\nrank = 4\n",
    "none": "",
    "bottleneck": "[adapter]\npreset = 'seq_bn'\nreduction_factor = 4\n",
    "union": "[adapter]\npreset = 'unipelt'\n",
    "prompt": "[adapter]\nmethod = 'prompt'\ntext = 'where is the answer'\n",
}


@pytest.mark.parametrize("adapter", ADAPTERS.values(), ids=ADAPTERS)
def test_a_run_leaves_a_reader_that_answers_as_it_did(adapter: str, tmp_path: Path, tiny_bert: Path) -> None:
    resolved = recipe(squad_file(tmp_path / "data.json"), tiny_bert, adapter=adapter)
    run = run_recipe(resolved, folder=tmp_path / "runs")
    assert {"recipe.toml", "metrics.jsonl", "environment.json", "curves.png"} <= {p.name for p in run.folder.iterdir()}
    assert Recipe.load(run.folder / "recipe.toml") == resolved
    reader = load_reader(run.folder / "reader")
    assert reader.calibration.to_dict() == run.result.calibration
    rows = span_rows(held_out(read_squad(tmp_path / "data.json"), fraction=0.2)[1])
    answers = reader.task.predict(reader.model, rows)
    assert all(answer is not None and answer.end > answer.start for answer in answers)
    again = run_recipe(resolved, folder=tmp_path / "runs")
    assert again.result.scores == run.result.scores


def test_a_recipe_that_starts_from_a_run_begins_where_it_ended(tmp_path: Path, tiny_bert: Path) -> None:
    data, adapter = squad_file(tmp_path / "data.json"), "[adapter]\nrank = 4\n"
    first = run_recipe(recipe(data, tiny_bert, adapter=adapter), folder=tmp_path / "first")
    more = recipe(data, tiny_bert, adapter=adapter)
    unmoved = {"start_from": str(first.folder), "learning_rate": 1e-12, "epochs": 1}
    more = more.model_copy(update={"train": more.train.model_copy(update=unmoved)})
    second = run_recipe(more, folder=tmp_path / "second")
    assert second.result.scores == first.result.scores
    assert second.result.calibration == pytest.approx(first.result.calibration)


def test_a_resumed_run_needs_the_one_it_started_from_no_more(tmp_path: Path, tiny_bert: Path) -> None:
    data, adapter = squad_file(tmp_path / "data.json"), "[adapter]\nrank = 4\n"
    first = run_recipe(recipe(data, tiny_bert, adapter=adapter), folder=tmp_path / "first")
    more = recipe(data, tiny_bert, adapter=adapter)
    more = more.model_copy(update={"train": more.train.model_copy(update={"start_from": str(first.folder)})})
    second = run_recipe(more, folder=tmp_path / "second")
    shutil.rmtree(first.folder)
    assert run_recipe(more, folder=tmp_path / "second").result.scores == second.result.scores


def test_a_kill_in_the_first_save_does_not_lose_what_a_run_starts_from(tmp_path: Path, tiny_bert: Path) -> None:
    data, adapter = squad_file(tmp_path / "data.json"), "[adapter]\nrank = 4\n"
    first = run_recipe(recipe(data, tiny_bert, adapter=adapter), folder=tmp_path / "first")
    more = recipe(data, tiny_bert, adapter=adapter)
    unmoved = {"start_from": str(first.folder), "learning_rate": 1e-12, "epochs": 1}
    more = more.model_copy(update={"train": more.train.model_copy(update=unmoved)})
    (tmp_path / "second" / "checkpoints" / ".step-00000003.999").mkdir(parents=True)
    second = run_recipe(more, folder=tmp_path / "second")
    assert second.result.scores == first.result.scores
    assert second.result.calibration == pytest.approx(first.result.calibration)


def test_a_run_keeps_the_precision_it_began_with(
    tmp_path: Path, tiny_bert: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a busy machine measures when the run goes on does not count."""
    automatic = recipe(squad_file(tmp_path / "data.json"), tiny_bert).model_copy(
        update={"precision": PrecisionConfig(compute="auto")}
    )
    monkeypatch.setattr(module, "fastest_precision", lambda: "bf16")
    run_recipe(automatic, folder=tmp_path / "runs")
    monkeypatch.setattr(module, "fastest_precision", lambda: "fp32")
    run_recipe(automatic, folder=tmp_path / "runs")
    assert json.loads((tmp_path / "runs" / "environment.json").read_text())["precision"] == "bf16"


def test_windows_longer_than_the_model_reads_are_refused_before_anything_is_written(
    tmp_path: Path, tiny_bert: Path
) -> None:
    long = recipe(squad_file(tmp_path / "data.json"), tiny_bert, task="[task]\nmax_length = 1000\n")
    with pytest.raises(ConfigError, match=r"task.max_length = 1000: needs at most 512"):
        run_recipe(long, folder=tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


def test_a_run_where_nothing_can_be_written_says_so(tmp_path: Path, tiny_bert: Path) -> None:
    (tmp_path / "runs").write_text("a file")
    with pytest.raises(DataError, match=r"runs.* cannot be written \(.*\); choose another folder with --runs"):
        run_recipe(recipe(squad_file(tmp_path / "data.json"), tiny_bert), folder=tmp_path / "runs" / "tiny")


def test_a_run_of_another_model_is_nothing_to_start_from(tmp_path: Path, tiny_bert: Path) -> None:
    data, adapter = squad_file(tmp_path / "data.json"), "[adapter]\nrank = 4\n"
    first = run_recipe(recipe(data, tiny_bert, adapter=adapter), folder=tmp_path / "first")
    other = shutil.copytree(tiny_bert, tmp_path / "other")
    for start, reason in ((first.folder, "a run of"), (tmp_path / "nothing", "cannot be read")):
        more = recipe(data, other, adapter=adapter)
        more = more.model_copy(update={"train": more.train.model_copy(update={"start_from": str(start)})})
        with pytest.raises(ConfigError, match=reason):
            run_recipe(more, folder=tmp_path / "second")


def test_another_recipe_in_the_same_folder_is_refused(tmp_path: Path, tiny_bert: Path) -> None:
    data = squad_file(tmp_path / "data.json")
    run_recipe(recipe(data, tiny_bert), folder=tmp_path / "runs")
    with pytest.raises(ConfigError, match="holds a run of another recipe"):
        run_recipe(recipe(data, tiny_bert, adapter="[adapter]\nrank = 2\n"), folder=tmp_path / "runs")


def test_another_plan_in_the_same_folder_is_no_other_recipe(tmp_path: Path, tiny_bert: Path) -> None:
    first = recipe(squad_file(tmp_path / "data.json"), tiny_bert)
    run_recipe(first, folder=tmp_path / "runs")
    module._claim(tmp_path / "runs", first.model_copy(update={"parallel": ParallelPlan.parse("dp=2,zero=3")}))
    assert Recipe.load(tmp_path / "runs" / "recipe.toml").parallel.zero == 3


def test_a_second_process_in_the_same_folder_is_refused(tmp_path: Path, tiny_bert: Path) -> None:
    (tmp_path / "runs").mkdir()
    with (
        FileLock(tmp_path / "runs" / "run.lock"),
        pytest.raises(ConfigError, match=r"another process is training in .*; .*choose another"),
    ):
        run_recipe(recipe(squad_file(tmp_path / "data.json"), tiny_bert), folder=tmp_path / "runs")
