"""Recipes of the objectives run from files to a folder that scores and answers, from random weights and real ones."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from cypher.adapters.folder_contents import describe
from cypher.config import Recipe, supports
from cypher.errors import ConfigError
from cypher.tasks.find_task import find_task
from cypher.tasks.run import run_recipe
from cypher.tasks.task_kind import Source
from cypher.tasks.use_task import evaluate, predict

WORDS = ["river", "house", "road", "bridge", "field"]
TEXTS = [f"the {one} is by the {other} and not by the {WORDS[number % 5]}" for number, one in enumerate(WORDS * 4)
         for other in WORDS[: 1 + number % 4]]  # fmt: skip
FRESH = "width = 16\nn_layers = 1\nn_heads = 2\ninner_width = 32\nvocabulary_size = 320\n"


def recipe(data: Path, task: str, model: str, *, columns: str = "", train: str = "") -> Recipe:
    return Recipe.from_toml(
        f"""
        [task]
        {task}
        [data]
        train = ["{data}"]
        development_fraction = 0.2
        {columns}
        [train]
        epochs = 2
        batch_size = 8
        learning_rate = 1e-3
        {train}
        [precision]
        compute = "fp32"
        """
        + model,
        name="tiny",
    )


def table(path: Path, rows: list[dict[str, object]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def prediction_of(folder: Path, path: Path) -> object:
    return [row["prediction"] for row in predict(find_task(str(folder)), Source(path=path))]


def test_masked_language_modelling(tmp_path: Path, make_tiny_bert: Callable[..., Path]) -> None:
    data = tmp_path / "texts.txt"
    data.write_text("\n".join(TEXTS), encoding="utf-8")
    for name, model in (
        ("fresh", f'[model.fresh]\narchitecture = "bert"\n{FRESH}'),
        ("head", f'[model]\nname = "{make_tiny_bert(words=WORDS)}"\n[adapter]\nrank = 2\n'),
    ):
        resolved = recipe(data, 'kind = "mask_lm"\nmax_length = 32\nwhole_word = true', model)
        run = run_recipe(resolved, folder=tmp_path / name)
        assert Recipe.load(run.folder / "recipe.toml") == resolved
        found = evaluate(find_task(str(run.folder)), Source(path=data))
        assert {"loss", "perplexity", "accuracy", "log_likelihood"} == set(found.scores)
        assert run_recipe(resolved, folder=tmp_path / name).result.scores == run.result.scores
        mask = "<mask>" if name == "fresh" else "[MASK]"
        asked = table(tmp_path / "asked.jsonl", [{"text": f"the {mask} is by the road"}])
        ((fills,),) = prediction_of(run.folder, asked)  # type: ignore[misc]
        assert len(fills) == 5


@pytest.mark.parametrize("completions", [False, True])
def test_causal_language_modelling(completions: bool, tmp_path: Path) -> None:
    rows = [{"prompt": text[:20], "completion": text[20:], "text": text} for text in TEXTS]
    data = table(tmp_path / "rows.jsonl", [dict(row) for row in rows])
    task = f'kind = "causal_lm"\nmax_length = 32\nmax_new_tokens = 4\ncompletions = {str(completions).lower()}'
    run = run_recipe(
        recipe(data, task, f'[model.fresh]\narchitecture = "llama"\n{FRESH}'), folder=tmp_path / "run"
    )  # fmt: skip
    losses = [json.loads(line).get("loss") for line in (run.folder / "metrics.jsonl").read_text().splitlines()]
    losses = [loss for loss in losses if loss is not None]
    assert losses[-1] < losses[0]
    found = evaluate(find_task(str(run.folder)), Source(path=data))
    assert found.scores["bits_per_byte"] > 0
    asked = table(tmp_path / "asked.jsonl", [{"prompt" if completions else "text": "the river"}])
    (text,) = prediction_of(run.folder, asked)  # type: ignore[misc]
    assert isinstance(text, str)


def test_translation(tmp_path: Path) -> None:
    with_bleu = importlib.util.find_spec("sacrebleu") is not None
    rows = [{"source": text, "target": text.upper()} for text in TEXTS]
    data = table(tmp_path / "rows.jsonl", [dict(row) for row in rows])
    task = f'kind = "translate"\nmax_new_tokens = 8\nwith_bleu = {str(with_bleu).lower()}'
    run = run_recipe(
        recipe(data, task, f'[model.fresh]\narchitecture = "seq2seq"\n{FRESH}'), folder=tmp_path / "run"
    )  # fmt: skip
    found = evaluate(find_task(str(run.folder)), Source(path=data))
    assert ("bleu" in found.scores) == with_bleu
    (text,) = prediction_of(run.folder, table(tmp_path / "asked.jsonl", [{"source": "the river"}]))  # type: ignore[misc]
    assert isinstance(text, str)


def test_a_run_of_a_fresh_model_can_be_moved(tmp_path: Path) -> None:
    data = table(tmp_path / "rows.jsonl", [{"source": text, "target": text.upper()} for text in TEXTS])
    task, model = 'kind = "translate"\nwith_bleu = false', f'[model.fresh]\narchitecture = "seq2seq"\n{FRESH}'
    run = run_recipe(recipe(data, task, model + "[adapter]\npreset = 'lora'\n"), folder=tmp_path / "run")
    moved = run.folder.rename(tmp_path / "moved")
    assert str(tmp_path) not in (moved / "task" / "adapter_config.json").read_text()
    assert describe(moved / "task").model_name == str(moved / "fresh")
    assert evaluate(find_task(str(moved)), Source(path=data)).rows == len(TEXTS)


def test_translation_of_files_side_by_side(tmp_path: Path) -> None:
    (tmp_path / "part.en").write_text("\n".join(TEXTS), encoding="utf-8")
    (tmp_path / "part.de").write_text("\n".join(text.upper() for text in TEXTS), encoding="utf-8")
    task = 'kind = "translate"\ntarget_suffix = ".de"\nwith_bleu = false'
    model = f'[model.fresh]\narchitecture = "seq2seq"\n{FRESH}'
    run = run_recipe(recipe(tmp_path / "part.en", task, model), folder=tmp_path / "run")
    assert evaluate(find_task(str(run.folder)), Source(path=tmp_path / "part.en")).rows == len(TEXTS)


@pytest.mark.parametrize("architecture", ["bert", "llama"])
def test_vectors_of_texts(architecture: str, tmp_path: Path) -> None:
    rows = [{"a": text, "second": text.upper(), "wrong": ["no"]} for text in TEXTS]
    data = table(tmp_path / "rows.jsonl", [dict(row) for row in rows])
    columns = 'columns = { first = "a", negatives = "wrong" }'
    model = f'[model.fresh]\narchitecture = "{architecture}"\n{FRESH}'
    task, train = 'kind = "embed"\ngradient_cache = true', "accumulation = 2"
    run = run_recipe(recipe(data, task, model, columns=columns, train=train), folder=tmp_path / "run")
    assert evaluate(find_task(str(run.folder)), Source(path=data)).scores["recall@10"] > 0
    (cosine,) = prediction_of(run.folder, table(tmp_path / "asked.jsonl", [{"a": "one", "second": "one"}]))  # type: ignore[misc]
    assert cosine == pytest.approx(1, abs=1e-5)
    with pytest.raises(ConfigError, match="gradient_cache"):
        run_recipe(recipe(data, 'kind = "embed"', model, columns=columns, train=train), folder=tmp_path / "other")


@pytest.mark.parametrize(
    ("task", "works"),
    [("mask_lm", {"bert"}), ("causal_lm", {"llama"}), ("translate", {"seq2seq"}), ("embed", {"bert", "llama"})],
)
def test_what_does_not_work_says_why(task: str, works: set[str]) -> None:
    for model in ("bert", "llama", "seq2seq"):
        support = supports(model=model, task=task)
        assert bool(support) == (model in works)
        assert bool(support.reason) != bool(support)


def test_a_tokenizer_is_not_trained_for_a_task_that_reads_no_texts(tmp_path: Path) -> None:
    data = table(tmp_path / "rows.jsonl", [{"text": text, "label": text[4]} for text in TEXTS])
    model = f'[model.fresh]\narchitecture = "bert"\n{FRESH}'
    with pytest.raises(ConfigError, match="without a tokenizer"):
        run_recipe(recipe(data, 'kind = "classify"', model), folder=tmp_path / "run")
