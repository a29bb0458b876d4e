"""The backbone lends itself with any adapter, and is what it was before when it comes back."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from superglue_files import write_benchmark

from cypher.apps.superglue.backbone import ADAPTER, Backbone
from cypher.apps.superglue.benchmark import TASKS
from cypher.apps.superglue.learn import ask, learn
from cypher.apps.superglue.parts import task_parts
from cypher.apps.superglue.settings import Settings
from cypher.config.compare import CompareConfig
from cypher.errors import ConfigError

ADAPTERS = ("lora", "seq_bn", "par_bn", "prefix_tuning", "prompt_tuning", "ia3", "loreft", "unipelt")
TINY = Settings(max_length=160, epochs=1, batch_size=8, learning_rate=1e-3)


@pytest.mark.parametrize("adapter", ADAPTERS)
@pytest.mark.parametrize("key", ["wic", "multirc"])
def test_a_task_is_learnt_and_asked_again_with_any_adapter(
    adapter: str, key: str, tmp_path: Path, tiny_bert: Path
) -> None:
    parts = task_parts([write_benchmark(tmp_path / "data", train=12, val=3)], TASKS[key])
    backbone = Backbone(str(tiny_bert), adapter)
    folder = tmp_path / "run"
    learn(backbone, TASKS[key], parts, settings=TINY, seed=1, folder=folder)
    assert not any(f".{ADAPTER}." in name for name, _ in backbone.loaded.model.named_parameters())
    first = ask(backbone, TASKS[key], parts.report, folder=folder)
    assert ask(Backbone(str(tiny_bert), adapter), TASKS[key], parts.report, folder=folder) == first


def test_it_is_one_model_for_all_and_unchanged_afterwards(tiny_bert: Path) -> None:
    backbone = Backbone(str(tiny_bert), "lora")
    before = {name: value.clone() for name, value in backbone.loaded.model.state_dict().items()}
    model = backbone.loaded.model
    with backbone.lent(CompareConfig(labels=("a", "b")), seed=1) as (headed, _):
        assert headed.model is model
        trained = [name for name, value in headed.named_parameters() if value.requires_grad]
        assert all(name.startswith("head.") or f".{ADAPTER}." in name for name in trained)
    assert backbone.loaded.model is model
    after = model.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], value) for name, value in before.items())


def test_the_seed_alone_says_how_adapter_and_head_begin(tiny_bert: Path) -> None:
    backbone = Backbone(str(tiny_bert), "lora")

    def begin(seed: int) -> torch.Tensor:
        with backbone.lent(CompareConfig(labels=("a", "b")), seed=seed) as (headed, _):
            return torch.cat([value.detach().flatten() for value in headed.parameters() if value.requires_grad])

    assert torch.equal(begin(3), begin(3))
    assert not torch.equal(begin(3), begin(4))


def test_an_unknown_adapter_is_refused_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"no preset is called 'seq_bm'; did you mean seq_bn\?"):
        Backbone("minilm", "seq_bm")
