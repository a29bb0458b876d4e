"""What an average is, and what has none; that it equals AdapterHub's library is tested with its folders."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tiny_models import build, hidden_of, inputs, randomise

from cypher.adapters.adapter import Adapter
from cypher.adapters.arrangement import activate, attached_names
from cypher.adapters.average import average_adapters
from cypher.adapters.methods import adapter_of
from cypher.config import AdapterConfig, adapter_config
from cypher.errors import ConfigError
from cypher.models.model import Model

LORA = adapter_config({"preset": "lora"})


def attached(**configs: AdapterConfig) -> Model:
    model = build("bert")
    for seed, (name, config) in enumerate(configs.items()):
        adapter_of(config).attach(model, name)
        randomise(model, name, seed=seed)
    return model


def test_full_rank_of_the_sum_loses_nothing() -> None:
    """LoRAs of rank 8 sum to an update of rank 16, which LoRAs attached together compute as well."""
    model = attached(a=LORA, b=LORA)
    options: dict[str, Any] = {"strategy": "lora_delta_w_svd", "rank": 16, "normalise_weights": False}
    average_adapters(model, "sum", {"a": LORA, "b": LORA}, weights=[1, 1], **options)
    given = inputs("bert")
    activate(model, "sum")
    summed = hidden_of(model, given)
    activate(model, None)
    Adapter.detach(model, "sum")
    torch.testing.assert_close(summed, hidden_of(model, given), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("preset", ["seq_bn", "dora", "vera", "prompt_tuning", "loreft"])
def test_an_average_of_one_is_that_one(preset: str) -> None:
    config = adapter_config({"preset": preset})
    model = attached(a=config)
    average_adapters(model, "copy", {"a": config})
    activate(model, "a")
    alone = hidden_of(model, inputs("bert"))
    activate(model, "copy")
    torch.testing.assert_close(hidden_of(model, inputs("bert")), alone)


def test_dropout_and_initial_values_may_differ() -> None:
    other = LORA.model_copy(update={"dropout": 0.1, "init": "bert"})
    model = attached(a=LORA, b=other)
    assert average_adapters(model, "mean", {"a": LORA, "b": other}) == LORA


@pytest.mark.parametrize(
    ("second", "options", "reason"),
    [
        ({"preset": "lora", "rank": 4}, {}, "'a' and 'b' differ in rank"),
        ({"preset": "seq_bn"}, {}, "differ in method"),
        ({"preset": "lora"}, {"weights": [1.0]}, "one weight each"),
        ({"preset": "lora"}, {"weights": [1.0, -1.0]}, "a sum that is not 0"),
        ({"preset": "lora"}, {"strategy": "lora_delta_w_svd"}, "needs a rank"),
        ({"preset": "lora"}, {"rank": 4}, "needs a rank for lora_delta_w_svd, and only there"),
        ({"preset": "lora"}, {"strategy": "lora_delta_w_svd", "rank": 65}, "at most 64"),
        ({"preset": "lora"}, {"strategy": "median"}, "one of linear"),
    ],
)
def test_refusals_attach_nothing(second: dict[str, Any], options: dict[str, Any], reason: str) -> None:
    other = adapter_config(second)
    model = attached(a=LORA, b=other)
    with pytest.raises(ConfigError, match=reason):
        average_adapters(model, "mean", {"a": LORA, "b": other}, **options)
    assert attached_names(model) == ["a", "b"]


@pytest.mark.parametrize("preset", ["dora", "seq_bn", "ia3"])
def test_strategies_of_lora_are_loras_alone(preset: str) -> None:
    config = adapter_config({"preset": preset})
    with pytest.raises(ConfigError, match="lora without a gate"):
        average_adapters(attached(a=config), "mean", {"a": config}, strategy="lora_linear_only_negate_b")
