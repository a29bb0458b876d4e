"""A fusion of a run's adapters is trained for one of its tasks, and changes none of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from superglue_files import write_benchmark

from cypher.adapters.composition import Fuse
from cypher.apps.superglue import fuse as fusing
from cypher.apps.superglue import run as runner
from cypher.apps.superglue.benchmark import TASKS, find_tasks
from cypher.apps.superglue.fuse import fuse
from cypher.apps.superglue.run import Plan, run
from cypher.apps.superglue.settings import Settings
from cypher.errors import ConfigError
from cypher.hub.weights import read_safetensors

TINY = Settings(max_length=160, epochs=2, batch_size=8, learning_rate=1e-2)


def learnt(tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch, *, tasks: str, adapter: str) -> Path:
    for module in (runner, fusing):
        monkeypatch.setattr(module, "settings_of", lambda key, profile: TINY)
    values: dict[str, Any] = {"few_shot": False, "profile": "full", "seeds": [1], "model": str(model)}
    data = write_benchmark(tmp_path / "data", train=30)
    run(Plan(tasks=find_tasks(tasks), folders=[data], adapter=adapter, output=tmp_path / "run", **values))
    return tmp_path / "run"


@pytest.mark.parametrize("key", ["cb", "multirc", "wic"])
def test_only_the_fusion_and_a_head_are_trained(
    key: str, tmp_path: Path, tiny_bert: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = learnt(tmp_path, tiny_bert, monkeypatch, tasks="cb,multirc,wic", adapter="seq_bn")
    found = fuse(folder, TASKS[key], seed=1)
    assert found["adapters"] == ["cb", "multirc", "wic"]
    assert set(found["metrics"]) == set(found["alone"]) == set(found["majority"])
    assert all(0 <= value <= 1 for value in found["metrics"].values())
    trained = set(read_safetensors(folder / "fusion" / key / "seed-1" / "best.safetensors"))
    marker = f".fusions.{Fuse('cb', 'multirc', 'wic').name}."
    assert any(marker in name for name in trained)
    assert all(marker in name or name.startswith("head.") for name in trained)


def test_what_cannot_be_fused_is_told(tmp_path: Path, tiny_bert: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = learnt(tmp_path, tiny_bert, monkeypatch, tasks="cb,rte", adapter="lora")
    with pytest.raises(ConfigError, match="a bottleneck or compacter adapter"):
        fuse(folder, TASKS["cb"], seed=1)
    with pytest.raises(ConfigError, match=r"has learnt cb, rte: needs wic and at least one other task"):
        fuse(folder, TASKS["wic"], seed=1)
