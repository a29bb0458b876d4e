"""A task is an ordinary run, with any adapter, and can be asked again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from superglue_files import write_benchmark

from cypher.apps.superglue.benchmark import TASKS
from cypher.apps.superglue.learn import ask, learn, recipe_of, sample
from cypher.apps.superglue.parts import task_parts
from cypher.apps.superglue.settings import FULL, Settings, in_order
from cypher.apps.superglue.submission import jsonl, submission_lines
from cypher.data.table import BadRows
from cypher.errors import ConfigError
from cypher.tasks.task_kind import Source
from cypher.tasks.use_task import evaluate

ADAPTERS = ("seq_bn", "prefix_tuning", "prompt_tuning", "loreft", "unipelt", "none")
TINY = Settings(max_length=160, epochs=1, batch_size=8, learning_rate=1e-3)


def learnt(key: str, adapter: str, tmp_path: Path, model: Path) -> tuple[dict[str, Any], list[Any], Path]:
    parts = task_parts([write_benchmark(tmp_path / "data", train=12, val=3)], TASKS[key])
    folder = tmp_path / "run"
    recipe = recipe_of(TASKS[key], TINY, model=str(model), adapter=adapter, seed=1, folder=folder)
    return learn(TASKS[key], parts, recipe, TINY, folder=folder), parts.report, folder


@pytest.mark.parametrize("adapter", ADAPTERS)
@pytest.mark.parametrize("key", ["wic", "multirc"])
def test_a_task_is_learnt_and_asked_again_with_any_adapter(
    adapter: str, key: str, tmp_path: Path, tiny_bert: Path
) -> None:
    _, rows, folder = learnt(key, adapter, tmp_path, tiny_bert)
    written = (folder / "predictions.jsonl").read_text(encoding="utf-8")
    assert jsonl(submission_lines(TASKS[key], rows, ask(TASKS[key], rows, folder=folder))) == written


@pytest.mark.parametrize("key", FULL)
def test_the_rows_beside_it_can_be_evaluated_by_any_one(key: str, tmp_path: Path, tiny_bert: Path) -> None:
    scores, _, folder = learnt(key, "lora", tmp_path, tiny_bert)
    found = evaluate(folder / "task", Source(path=folder / "choose.jsonl", bad=BadRows()))
    assert found.rows == scores["rows"]["choose"]
    names = {"multirc": "judged", "cb": "macro_f1"}
    assert 0 <= found.scores[names.get(key, "accuracy")] <= 100


def test_a_sample_is_always_the_same_and_in_order() -> None:
    assert sample(list(range(5)), None) == sample(list(range(5)), 9) == list(range(5))
    assert sample(list(range(100)), 9) == sample(list(range(100)), 9) == sorted(sample(list(range(100)), 9))


def test_what_others_go_on_from_comes_first() -> None:
    order = in_order(list(TASKS))
    for key, settings in FULL.items():
        assert settings.start_from is None or order.index(settings.start_from) < order.index(key)


def test_an_unknown_adapter_is_refused_with_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="did you mean seq_bn"):
        recipe_of(TASKS["cb"], TINY, model="minilm", adapter="seq_bm", seed=1, folder=tmp_path)
