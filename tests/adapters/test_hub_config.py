"""Configurations to AdapterHub's and back, and what has no counterpart."""

from __future__ import annotations

from typing import Any

import pytest

from cypher.adapters.hub_architecture import BART, BERT, LLAMA, HubArchitecture
from cypher.adapters.hub_config import from_hub_config, to_hub_config
from cypher.adapters.hub_folder import FORMAT
from cypher.config import PRESETS, adapter_config
from cypher.errors import ModelError

# The library scales before the activation; its folders do not tell DiReFT from NoReFT.
DIFFERENT = {"ia3", "direft"}


@pytest.mark.parametrize("architecture", [BERT, LLAMA], ids=["bert", "llama"])
@pytest.mark.parametrize("preset", [name for name in PRESETS if name not in DIFFERENT])
def test_presets_there_and_back(preset: str, architecture: HubArchitecture) -> None:
    config = adapter_config({"preset": preset})
    assert from_hub_config(to_hub_config(config, architecture, 12), architecture, 12, version=FORMAT) == config


@pytest.mark.parametrize(
    "values",
    [
        {"preset": "seq_bn", "leave_out": [0, 3], "scale": "channel", "activation": "gelu_tanh", "dropout": 0.25},
        {"preset": "par_bn", "places": ["attention"], "gated": True},
        {"preset": "compacter", "terms": 2, "rank": 3, "shared_rule": False},
        {"method": "invertible", "reduction_factor": 4.0},
        {"preset": "prefix_tuning", "places": ["attention"], "leave_out": [1]},
        {"preset": "loreft", "leave_out": [1, 2], "activation": "relu", "suffix_positions": 1, "tied": True},
        {"preset": "lora", "targets": ["key", "up"], "alpha": 32.0, "init": "bert"},
        {"method": "ia3", "outputs": ["key", "down"], "inputs": []},
        {"preset": "dvora", "targets": ["value"], "rank": 4, "leave_out": [2]},
    ],
)
@pytest.mark.parametrize("architecture", [BERT, LLAMA], ids=["bert", "llama"])
def test_options_there_and_back(values: dict[str, Any], architecture: HubArchitecture) -> None:
    config = adapter_config(values)
    assert from_hub_config(to_hub_config(config, architecture, 4), architecture, 4, version=FORMAT) == config


@pytest.mark.parametrize(
    ("values", "architecture", "reason"),
    [
        ({"preset": "ia3"}, BERT, "before its activation"),
        ({"method": "lora"}, BERT, "a change of output"),
        ({"preset": "lora", "targets": ["gate"]}, LLAMA, "a change of gate"),
        ({"preset": "dora", "alpha": 16}, BERT, "alpha = rank"),
        ({"preset": "lora", "gated": True, "alpha": 16}, BERT, "alpha = rank"),
        ({"preset": "seq_bn_inv"}, BART, "on the encoder's side alone"),
        ({"preset": "prefix_tuning", "places": ["cross_attention"]}, BART, "the cross attention alone"),
        ({"preset": "direft", "activation": "relu"}, BERT, "subtract_projection"),
        ({"method": "union", "parts": [{"preset": "lora"}, {"preset": "vera"}]}, BERT, "two parts of one family"),
        (
            {"method": "union", "parts": [{"preset": "seq_bn"}, {"method": "invertible", "activation": "tanh"}]},
            BERT,
            "another activation",
        ),
    ],
)
def test_what_the_library_lacks(values: dict[str, Any], architecture: HubArchitecture, reason: str) -> None:
    with pytest.raises(ModelError, match=reason):
        to_hub_config(adapter_config(values), architecture, 4)


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"mh_adapter": False, "output_adapter": True, "colour": "red"}, "the field colour"),
        ({"reduction_factor": {"1": 8, "default": 16}}, "all layers here have one"),
        ({"residual_before_ln": "post_add"}, "no residual of its own"),
        ({"original_ln_after": False}, "always norms"),
        ({"non_linearity": "leakyrelu"}, "no such activation"),
        ({"stochastic_depth": 0.1}, "whole layers"),
        ({"inv_adapter": "glow", "inv_adapter_reduction_factor": 2}, "no other than nice"),
        ({"phm_layer": True, "shared_W_phm": True}, "each layer's own"),
        ({"output_adapter": False}, "nothing would be attached"),
        ({"architecture": "mtl_lora"}, "no such method"),
        ({"architecture": "lora", "r": 4, "alpha": 8, "use_dora": True}, "alpha = rank"),
        ({"architecture": "lora", "composition_mode": "scale", "alpha": 2}, "scales stand alone"),
        ({"architecture": "prefix_tuning", "shared_gating": False}, "keys and values alike"),
        ({"architecture": "prefix_tuning", "encoder_prefix": False}, "leave the encoder's blocks out"),
        ({"architecture": "prompt_tuning", "combine": "prefix_after_bos"}, "in front of all tokens"),
    ],
)
def test_what_is_lacking_here(values: dict[str, Any], reason: str) -> None:
    with pytest.raises(ModelError, match=reason):
        from_hub_config(values, BERT, 4)


def test_older_releases() -> None:
    """What they meant by alpha, by activations and by a nested table."""
    lora = {"architecture": "lora", "r": 8, "alpha": 16}
    assert from_hub_config(lora, BERT, 4, version="adapters.1.0.1").alpha == 8
    assert from_hub_config(lora, BERT, 4, version="adapters.1.1.0").alpha == 16
    first = {
        "mh_adapter": False, "output_adapter": True, "original_ln_before": True, "non_linearity": "gelu",
        "invertible_adapter": {"block_type": "nice", "non_linearity": "relu", "reduction_factor": 2},
    }  # fmt: skip
    parts = from_hub_config(first, BERT, 4).parts
    assert [part.activation for part in parts] == ["gelu_tanh", "gelu_tanh"]
    assert from_hub_config({"non_linearity": "gelu"}, BERT, 4, version="3.2.0").activation == "gelu"
