"""What would be pushed: the card, and the files of one commit. Fetching is tested with the hub's client."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny_models import build

from cypher.adapters.composition import Stack
from cypher.adapters.folder import save_adapter
from cypher.adapters.hub_folder import HubModel, save_hub_adapter
from cypher.adapters.hub_heads import HubHead, save_hub_head
from cypher.adapters.hub_setup import save_hub_setup
from cypher.adapters.methods import adapter_of
from cypher.adapters.repository import adapter_card, push_adapter, upload_operations
from cypher.config import adapter_config
from cypher.errors import ConfigError
from cypher.hub.hugging_face import resolve_adapter
from cypher.models.load import load_model
from cypher.models.model import Model

OF = HubModel(name="google/some-bert", type="bert")
CONFIG = adapter_config({"preset": "lora"})


@pytest.fixture
def model() -> Model:
    made = build("bert")
    for name in ("news", "reviews"):
        adapter_of(CONFIG).attach(made, name)
    return made


@pytest.fixture
def folder(model: Model, tmp_path: Path) -> Path:
    save_hub_adapter(tmp_path / "news", model, "news", config=CONFIG, of=OF)
    head = HubHead(name="news", kind="question_answering", layers=((torch.zeros(2, 64), torch.zeros(2)),))
    save_hub_head(tmp_path / "news", 64, head, of=OF)
    return tmp_path / "news"


def test_the_card_says_what_it_is_and_how_it_is_loaded(folder: Path) -> None:
    card = adapter_card(folder, "me/news", licence="apache-2.0", languages=["en"], datasets=["squad"])
    front, text = card.removeprefix("---\n").split("\n---\n", 1)
    assert front.splitlines() == [
        "tags:", "- adapter-transformers", "- bert", "base_model: google/some-bert", "language:", "- en", "datasets:",
        "- squad", "license: apache-2.0",
    ]  # fmt: skip
    for line in (
        "# news",
        "- `news`: lora, 4,096 parameters",
        "Head: question_answering.",
        'model.load_adapter("me/news", set_active=True, use_safetensors=True)',
        'load_hub_adapter(resolve_adapter("me/news"), model)',
    ):
        assert line in text.splitlines()


def test_the_card_of_a_set_up_loads_all_of_it(model: Model, tmp_path: Path) -> None:
    bottleneck = adapter_config({"preset": "seq_bn"})
    for name in ("first", "second"):
        adapter_of(bottleneck).attach(model, name)
    configs = dict.fromkeys(("first", "second"), bottleneck)
    save_hub_setup(tmp_path / "both", model, Stack("first", "second"), configs=configs, of=OF)
    card = adapter_card(tmp_path / "both", "me/both")
    assert "Composition: Stack('first', 'second')" in card
    assert 'model.load_adapter_setup("me/both", set_active=True, use_safetensors=True)' in card
    assert 'load_hub_setup(resolve_adapter("me/both"), model)' in card


def test_the_commands_of_a_card_run(tiny_bert: Path, tmp_path: Path) -> None:
    loaded = load_model(str(tiny_bert))
    adapter_of(CONFIG).attach(loaded.model, "mine")
    save_hub_adapter(
        tmp_path / "mine", loaded.model, "mine", config=CONFIG, of=HubModel(name=str(tiny_bert), type="bert")
    )
    card = adapter_card(tmp_path / "mine", str(tmp_path / "mine"))
    assert "base_model" not in card  # a folder is none that others have
    ours = card.rsplit("```python\n", 1)[1].split("```")[0]
    scope: dict[str, object] = {}
    exec(ours, scope)
    assert "mine" in str(scope["model"])


def test_one_commit_adds_the_card_and_nothing_but_the_adapters_files(folder: Path) -> None:
    (folder / "pytorch_adapter.bin").write_bytes(b"a pickle")
    (folder / "notes.txt").write_text("private")
    operations = upload_operations(folder, "the card")
    assert [operation.path_in_repo for operation in operations] == [
        "README.md", "adapter.safetensors", "adapter_config.json", "head_config.json", "model_head.safetensors",
    ]  # fmt: skip
    assert operations[0].path_or_fileobj == b"the card"


def test_only_adapterhubs_format_is_pushed_and_only_with_a_network(model: Model, folder: Path, tmp_path: Path) -> None:
    save_adapter(tmp_path / "ours", model, "news", config=CONFIG, model_name="minilm")
    with pytest.raises(ConfigError, match="cypher adapters convert"):
        push_adapter(tmp_path / "ours", "me/news")
    with pytest.raises(ConfigError, match="with the network off"):
        push_adapter(folder, "me/news")


def test_a_folder_is_its_own_source(folder: Path) -> None:
    assert resolve_adapter(str(folder)) == folder
