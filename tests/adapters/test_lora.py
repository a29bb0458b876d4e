"""LoRA: no change until trained, the paper's formula, merge at no cost, detach, save and load."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from cypher.adapters.adapter import Adapter, freeze_all_but
from cypher.adapters.folder import load_adapter, save_adapter
from cypher.adapters.lora import Lora
from cypher.config import LoraConfig
from cypher.data.batch import Inputs
from cypher.errors import ConfigError, ModelError
from cypher.models.bert import Bert, BertConfig

CONFIG = LoraConfig(rank=3, alpha=6.0)


def bert(width: int = 16) -> Bert:
    torch.manual_seed(0)
    return Bert(
        BertConfig(
            vocabulary_size=30, width=width, n_layers=2, n_heads=2, inner_width=24, dropout=0, attention_dropout=0
        )
    ).eval()


def inputs() -> Inputs:
    token_ids = torch.randint(1, 30, (2, 9), generator=torch.Generator().manual_seed(1))
    return Inputs(token_ids=token_ids, attention_mask=torch.arange(9) < torch.tensor([[9], [5]]))


def trained(model: Bert, name: str = "mine", config: LoraConfig = CONFIG) -> Bert:
    Lora(config).attach(model, name)
    for parameter in Adapter.parameters_of(model, name).values():
        torch.nn.init.normal_(parameter, std=0.2)
    return model


def test_fresh_adapter_changes_nothing_and_only_it_is_trained() -> None:
    model = bert()
    before = model(inputs()).hidden
    Lora(CONFIG).attach(model, "mine")
    torch.testing.assert_close(model(inputs()).hidden, before)
    freeze_all_but(model, "mine")
    open_ = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert open_ == set(Adapter.parameters_of(model, "mine"))
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == Lora(CONFIG).num_params(model)


def test_formula_of_the_paper() -> None:
    model = trained(bert(), config=LoraConfig(rank=3, alpha=6.0, targets=("query",)))
    layer = model.segments["encoder"]["0"].attention.query
    values = torch.randn(4, 16)
    delta = layer.deltas["mine"]
    expected = values @ layer.weight.T + layer.bias + (6.0 / 3) * values @ delta.down.T @ delta.up.T
    torch.testing.assert_close(layer(values), expected)


@pytest.mark.parametrize("names", [["one"], ["one", "two"]])
def test_merge_is_the_same_function_without_deltas(names: list[str]) -> None:
    model = bert()
    for name in names:
        trained(model, name)
    before, expected = {name: value.clone() for name, value in model.state_dict().items()}, model(inputs()).hidden
    merged = Adapter.merge(model)
    assert not any("deltas" in name for name, _ in model.named_parameters())
    torch.testing.assert_close(model(inputs()).hidden, expected, atol=1e-5, rtol=1e-5)
    merged.undo()
    assert set(model.state_dict()) == set(before)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    Adapter.merge(bert()).undo()  # nothing is attached, so nothing is to be done


def test_detach_gives_the_model_back() -> None:
    model = bert()
    before, names = model(inputs()).hidden, set(model.state_dict())
    trained(model)
    assert not torch.allclose(model(inputs()).hidden, before)
    Adapter.detach(model, "mine")
    assert set(model.state_dict()) == names
    torch.testing.assert_close(model(inputs()).hidden, before, atol=0, rtol=0)


def test_saved_folder_loads_and_refuses_another_model(tmp_path: Path) -> None:
    model = trained(bert())
    save_adapter(tmp_path, model, "mine", config=CONFIG, model_name="some-model")
    other = bert()
    assert load_adapter(tmp_path, other) == "mine"
    torch.testing.assert_close(other(inputs()).hidden, model(inputs()).hidden, atol=2e-3, rtol=2e-3)  # fp16 on disk
    with pytest.raises(ModelError, match="is for width 16"):
        load_adapter(tmp_path, bert(32))
    with pytest.raises(ModelError, match="cannot be read"):
        load_adapter(tmp_path / "absent", bert())


def test_names_and_targets_are_checked() -> None:
    model = trained(bert())
    with pytest.raises(ConfigError, match="attached already"):
        Lora(CONFIG).attach(model, "mine")
    for name in ("", "a.b", "half", "train"):
        with pytest.raises(ConfigError, match="without dots"):
            Lora(CONFIG).attach(model, name)
    with pytest.raises(ConfigError, match=r"adapter\.targets"):
        Lora(LoraConfig(targets=())).attach(model, "none")
