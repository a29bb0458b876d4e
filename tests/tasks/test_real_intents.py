"""Real weights on real questions: a short run knows most intents of a bank's customers."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
import torch

from cypher.config import Recipe
from cypher.data.fetch import locate
from cypher.data.table import read_table
from cypher.files import write_text
from cypher.tasks.run import run_recipe
from cypher.tasks.task_kind import Source
from cypher.tasks.use_task import evaluate

RECIPE = Path(__file__).parents[2] / "recipes" / "banking77_intents.toml"
SHORT = ["data.limit=500", "data.development_fraction=0.02", "train.epochs=3", "task.max_length=48"]


@pytest.mark.real_data
@pytest.mark.real_weights
def test_a_short_run_knows_most_intents(tmp_path: Path) -> None:
    began = time.perf_counter()
    run = run_recipe(Recipe.load(RECIPE, overrides=[*SHORT, "train.seed=3"]), folder=tmp_path)
    rows = list(read_table(locate("banking77/test")))[::5]
    some = write_text(tmp_path / "some.jsonl", "".join(json.dumps(row.values) + "\n" for row in rows))
    scores = evaluate(run.folder / "task", Source(path=some)).scores
    print(f"\n{time.perf_counter() - began:.1f} s on {torch.get_num_threads()} threads: {scores}")
    # The most frequent intent is 1.3 % of the test rows; six or seven questions an intent were seen.
    assert scores["accuracy"] > 65
    assert scores["macro_f1"] > 60
