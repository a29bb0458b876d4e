"""Configurations as AdapterHub's library writes them (Poth et al. 2023, arXiv 2311.11077) and ours, in both directions.

Its ``config`` is one flat table a method; a union is a list of them. What only concerns how training starts is written
with the library's defaults and not read. What has no counterpart here, or there, is refused with the reason.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from cypher.adapters.hub_architecture import HubArchitecture
from cypher.config import (
    AdapterConfig,
    BottleneckConfig,
    CompacterConfig,
    DoraConfig,
    DvoraConfig,
    Ia3Config,
    InvertibleConfig,
    LoraConfig,
    PrefixConfig,
    PromptConfig,
    ReftConfig,
    UnionConfig,
    VeraConfig,
    adapter_config,
)
from cypher.errors import ModelError

HubConfig = dict[str, Any]

_ACTIVATIONS: dict[str | None, str] = {
    "relu": "relu", "gelu": "gelu", "gelu_new": "gelu_tanh", "swish": "silu", "tanh": "tanh", "linear": "identity",
    "silu": "silu", "gelu_pytorch_tanh": "gelu_tanh", None: "identity",
}  # fmt: skip
# The first name of each is the one that is written.
_TO_HUB_ACTIVATION = {ours: theirs for theirs, ours in reversed(_ACTIVATIONS.items())}
# Before version 2 the library called them so.
_FIRST_ACTIVATIONS = {"gelu": "gelu_new", "gelu_orig": "gelu"}

# Fields that a method shares under another name, theirs to ours.
_JOIN = {
    "reduction_factor": "reduction_factor", "ln_before": "norm_before", "ln_after": "norm_after",
    "adapter_residual_before_ln": "norm_with_residual", "scaling": "scale", "dropout": "dropout",
    "use_gating": "gated", "leave_out": "leave_out",
}  # fmt: skip
_KRONECKER = {"phm_dim": "terms", "phm_rank": "rank", "shared_phm_rule": "shared_rule"}
_PREFIX = {
    "prefix_length": "length", "flat": "flat", "bottleneck_size": "bottleneck", "dropout": "dropout",
    "use_gating": "gated", "leave_out": "leave_out",
}  # fmt: skip
_REFT = {
    "r": "rank", "prefix_positions": "prefix_positions", "suffix_positions": "suffix_positions",
    "orthogonality": "orthogonal", "tied_weights": "tied", "subtract_projection": "subtract_projection",
    "dropout": "dropout",
}  # fmt: skip
_PLACES = {"mh_adapter": "attention", "cross_adapter": "cross_attention", "output_adapter": "feedforward"}
_ATTENTION = {"q": "query", "k": "key", "v": "value"}

# Every field of a method with what the library takes when it is absent.
_BOTTLENECK_FIELDS: HubConfig = {
    "mh_adapter": False, "output_adapter": True, "cross_adapter": False, "reduction_factor": 16,
    "non_linearity": "relu", "original_ln_before": False, "original_ln_after": True, "ln_before": False,
    "ln_after": False, "init_weights": "bert", "init_weights_seed": None, "is_parallel": False, "scaling": 1.0,
    "use_gating": False, "residual_before_ln": True, "adapter_residual_before_ln": False, "inv_adapter": None,
    "inv_adapter_reduction_factor": None, "leave_out": [], "dropout": 0.0, "phm_layer": False, "phm_dim": 4,
    "factorized_phm_W": True, "shared_W_phm": False, "shared_phm_rule": True, "factorized_phm_rule": False,
    "phm_c_init": "normal", "phm_init_range": 0.0001, "learn_phm": True,
    "hypercomplex_nonlinearity": "glorot-uniform", "phm_rank": 1, "phm_bias": True, "stochastic_depth": 0.0,
}  # fmt: skip
_PREFIX_FIELDS: HubConfig = {
    "architecture": "prefix_tuning", "encoder_prefix": True, "cross_prefix": True, "leave_out": [], "flat": False,
    "prefix_length": 30, "bottleneck_size": 512, "non_linearity": "tanh", "dropout": 0.0, "use_gating": False,
    "shared_gating": True, "init_weights_seed": None,
}  # fmt: skip
_PROMPT_FIELDS: HubConfig = {
    "architecture": "prompt_tuning", "prompt_length": 10, "prompt_init": "random_uniform", "prompt_init_text": None,
    "combine": "prefix", "init_weights_seed": None, "random_uniform_scale": 0.5,
}  # fmt: skip
_LORA_FIELDS: HubConfig = {
    "architecture": "lora", "selfattn_lora": True, "intermediate_lora": False, "output_lora": False, "leave_out": [],
    "r": 8, "alpha": 8, "dropout": 0.0, "attn_matrices": ["q", "v"], "composition_mode": "add",
    "init_weights": "lora", "init_weights_seed": None, "use_gating": False, "use_dora": False, "vera_d": None,
    "vera_b": None, "dtype": None,
}  # fmt: skip
# The library does not write ``subtract_projection``, so what it saved of DiReFT is NoReFT, there as here.
_REFT_FIELDS: HubConfig = {
    "architecture": "reft", "layers": "all", "prefix_positions": 3, "suffix_positions": 0, "r": 1,
    "orthogonality": True, "tied_weights": False, "subtract_projection": True, "dropout": 0.05,
    "non_linearity": None, "dtype": None, "output_reft": True, "init_weights_seed": None,
}  # fmt: skip

# Fields with one value that has a counterpart here, and why the others have none.
_FIXED: dict[str, tuple[Any, str]] = {
    "original_ln_after": (True, "a block here always norms behind its adapters"),
    "stochastic_depth": (0.0, "whole layers are dropped by train, not by an adapter"),
    "factorized_phm_W": (True, "the larger factors here are of low rank"),
    "shared_W_phm": (False, "the larger factors here are each layer's own"),
    "factorized_phm_rule": (False, "the smaller factors here are whole"),
    "learn_phm": (True, "the smaller factors here are trained"),
    "phm_bias": (True, "a layer here has a bias"),
    "encoder_prefix": (True, "leave the encoder's blocks out instead"),
    "shared_gating": (True, "a gate here weighs keys and values alike"),
    "combine": ("prefix", "vectors here stand in front of all tokens, the first one too"),
    "output_reft": (True, "what is changed here is the output of a block"),
}


def to_hub_config(config: AdapterConfig, architecture: HubArchitecture, n_blocks: int) -> HubConfig:
    """What the library's ``config`` would say.

    Args:
        config: Of any method.
        architecture: Whose linear layers are meant.
        n_blocks: Of the model, over all segments.

    Raises:
        ModelError: The library has nothing that is the same function.

    Example:
        >>> from cypher.adapters.hub_architecture import BERT
        >>> to_hub_config(adapter_config({"preset": "seq_bn"}), BERT, 12)["original_ln_before"]
        True
    """
    parts = config.parts if isinstance(config, UnionConfig) else (config,)
    invertible = [part for part in parts if isinstance(part, InvertibleConfig)]
    others = [part for part in parts if not isinstance(part, InvertibleConfig)]
    made = [_to_hub(part, architecture, n_blocks) for part in others]
    if invertible:
        _add_invertible(made, invertible, architecture)
    kinds = [part.get("architecture") for part in made]
    if len(set(kinds)) < len(kinds):
        raise _no_counterpart("two parts of one family in a union", "at most one each of bottleneck, prefix, lora, …")
    return made[0] if len(made) == 1 else {"architecture": "union", "configs": made}


def from_hub_config(
    values: Mapping[str, Any], architecture: HubArchitecture, n_blocks: int, *, version: str | None = None
) -> AdapterConfig:
    """Our configuration of what the library's ``config`` says.

    Args:
        values: As in ``adapter_config.json``.
        architecture: Whose linear layers are meant.
        n_blocks: Of the model, over all segments.
        version: Of the library that wrote it; older ones meant other things by some fields.

    Raises:
        ModelError: A field is unknown, or what it says has no counterpart here.
    """
    if values.get("architecture") == "union":
        parts = [part for each in values["configs"] for part in _from_hub(dict(each), architecture, n_blocks, version)]
    else:
        parts = _from_hub(dict(values), architecture, n_blocks, version)
    return adapter_config(parts[0] if len(parts) == 1 else {"method": "union", "parts": parts})


def _to_hub(config: AdapterConfig, architecture: HubArchitecture, n_blocks: int) -> HubConfig:
    if isinstance(config, (BottleneckConfig, CompacterConfig)):
        return _bottleneck_to_hub(config)
    if isinstance(config, PrefixConfig):
        if config.places == ("cross_attention",):
            raise _no_counterpart("a prefix of the cross attention alone", "the decoder's own attention gets one too")
        return {
            **_PREFIX_FIELDS,
            **_renamed(config, _PREFIX),
            "cross_prefix": "cross_attention" in config.places,
            "non_linearity": _TO_HUB_ACTIVATION[config.activation],
        }
    if isinstance(config, PromptConfig):
        made = {**_PROMPT_FIELDS, "prompt_length": config.length}
        del made["random_uniform_scale"]
        return made
    if isinstance(config, ReftConfig):
        kept = [number for number in range(n_blocks) if number not in config.leave_out]
        activation = None if config.activation == "identity" else _TO_HUB_ACTIVATION[config.activation]
        layers: Any = kept if config.leave_out else "all"
        if activation is not None and not config.subtract_projection:
            raise _no_counterpart(
                "reft with an activation and subtract_projection = false", "its folders do not keep the latter"
            )
        made = {**_REFT_FIELDS, **_renamed(config, _REFT), "layers": layers, "non_linearity": activation}
        del made["subtract_projection"]
        return made
    assert not isinstance(config, (UnionConfig, InvertibleConfig)), "a union has no union inside"
    return _delta_to_hub(config, architecture)


def _bottleneck_to_hub(config: BottleneckConfig | CompacterConfig) -> HubConfig:
    made = {**_BOTTLENECK_FIELDS, **_renamed(config, _JOIN)}
    made |= {theirs: ours in config.places for theirs, ours in _PLACES.items()}
    made |= {
        "non_linearity": _TO_HUB_ACTIVATION[config.activation],
        "original_ln_before": config.reads == "normed",
        "is_parallel": config.reads == "residual",
        "residual_before_ln": config.residual == "update",
    }
    if isinstance(config, CompacterConfig):
        return made | {"phm_layer": True, **_renamed(config, _KRONECKER)}
    return made | {"init_weights": config.init}


def _add_invertible(made: list[HubConfig], parts: list[InvertibleConfig], architecture: HubArchitecture) -> None:
    if architecture.inverts_one_side:
        raise _no_counterpart(
            "a reversible change of an encoder-decoder's embedding", "the library has it on the encoder's side alone"
        )
    part = parts[0]
    bottleneck = next((each for each in made if "architecture" not in each), None)
    activation = _TO_HUB_ACTIVATION[part.activation]
    if bottleneck is None:
        bottleneck = {**_BOTTLENECK_FIELDS, "output_adapter": False, "non_linearity": activation}
        made.append(bottleneck)
    if bottleneck["non_linearity"] != activation:
        raise _no_counterpart(
            f"an invertible part with {part.activation} beside a bottleneck with another activation",
            "the library has one for both",
        )
    bottleneck |= {"inv_adapter": "nice", "inv_adapter_reduction_factor": part.reduction_factor}


def _delta_to_hub(
    config: LoraConfig | DoraConfig | VeraConfig | DvoraConfig | Ia3Config, architecture: HubArchitecture
) -> HubConfig:
    if isinstance(config, Ia3Config):
        if config.inputs:
            raise _no_counterpart(
                f"ia3 with inputs = {list(config.inputs)}",
                "the library scales outputs alone, so the feed-forward's middle before its activation "
                f'(outputs = ["key", "value", "{architecture.intermediate}"], inputs = [])',
            )
        made = {"r": 1, "alpha": 1, "composition_mode": "scale", "init_weights": "ia3"}
        return {**_LORA_FIELDS, **made, **_targets_to_hub(config.outputs, architecture), "leave_out": config.leave_out}
    made = {**_LORA_FIELDS, "r": config.rank, "dropout": config.dropout, "leave_out": list(config.leave_out)}
    made |= _targets_to_hub(config.targets, architecture)
    if isinstance(config, (VeraConfig, DvoraConfig)):
        made |= {"alpha": config.rank, "init_weights": "vera", "vera_d": config.down_scale, "vera_b": 0.0}
        return made | {"use_dora": isinstance(config, DvoraConfig)}
    alpha = int(config.alpha) if config.alpha == int(config.alpha) else config.alpha
    made |= {"alpha": alpha, "init_weights": config.init, "use_dora": isinstance(config, DoraConfig)}
    if isinstance(config, DoraConfig) or config.gated:
        _needs_no_scale(config.alpha == config.rank, "dora" if isinstance(config, DoraConfig) else "gated lora")
    return made | {"use_gating": isinstance(config, LoraConfig) and config.gated}


def _targets_to_hub(targets: Iterable[str], architecture: HubArchitecture) -> HubConfig:
    names = set(targets)
    letters = [letter for letter, ours in _ATTENTION.items() if ours in names]
    reached = {*_ATTENTION.values(), architecture.intermediate, architecture.output}
    if beyond := sorted(names - reached):
        raise ModelError(
            f"a change of {beyond[0]} has no counterpart in AdapterHub's library",
            needed=f"targets among {', '.join(sorted(reached))}",
            change="fold it into the model instead: cypher adapters merge",
        )
    return {
        "selfattn_lora": bool(letters),
        "attn_matrices": letters or ["q", "v"],
        "intermediate_lora": architecture.intermediate in names,
        "output_lora": architecture.output in names,
    }


def _from_hub(values: HubConfig, architecture: HubArchitecture, n_blocks: int, version: str | None) -> list[HubConfig]:
    family = values.get("architecture")
    known = {
        None: _BOTTLENECK_FIELDS, "prefix_tuning": _PREFIX_FIELDS, "prompt_tuning": _PROMPT_FIELDS,
        "lora": _LORA_FIELDS, "reft": _REFT_FIELDS,
    }.get(family)  # fmt: skip
    if known is None:
        raise _unread(f"architecture {family!r}", "there is no such method here")
    if first := values.pop("invertible_adapter", None):  # as version 1 wrote it
        values |= {
            "inv_adapter": first["block_type"],
            "inv_adapter_reduction_factor": first["reduction_factor"],
        }
    for field in values:
        if field not in known and field != "architecture":
            raise _unread(f"the field {field}", "its meaning is not known")
    full = {**known, **values}
    for field, (right, reason) in _FIXED.items():
        if full.get(field, right) != right:
            raise _unread(f"{field} = {full[field]!r}", reason)
    if family == "lora":
        return [_delta_from_hub(full, architecture, version)]
    if version is None and full.get("non_linearity") in _FIRST_ACTIVATIONS:
        full["non_linearity"] = _FIRST_ACTIVATIONS[full["non_linearity"]]
    if family == "prompt_tuning":
        return [{"method": "prompt", "length": full["prompt_length"]}]
    activation = _ACTIVATIONS.get(full["non_linearity"])
    if activation is None:
        raise _unread(f"non_linearity = {full['non_linearity']!r}", "there is no such activation")
    if family == "prefix_tuning":
        places = ["attention", "cross_attention"] if full["cross_prefix"] else ["attention"]
        return [{"method": "prefix", **_named(full, _PREFIX), "places": places, "activation": activation}]
    if family == "reft":
        kept = range(n_blocks) if full["layers"] == "all" else full["layers"]
        leave_out = sorted(set(range(n_blocks)) - set(kept))
        return [{"method": "reft", **_named(full, _REFT), "leave_out": leave_out, "activation": activation}]
    return _bottleneck_from_hub(full, activation, architecture)


def _bottleneck_from_hub(full: HubConfig, activation: str, architecture: HubArchitecture) -> list[HubConfig]:
    if isinstance(full["reduction_factor"], Mapping):
        raise _unread("a reduction_factor for every layer", "all layers here have one")
    if full["residual_before_ln"] not in (True, False):
        raise _unread(f"residual_before_ln = {full['residual_before_ln']!r}", "what is read has no residual of its own")
    parts: list[HubConfig] = []
    if places := [ours for theirs, ours in _PLACES.items() if full[theirs]]:
        reads = "residual" if full["is_parallel"] else "normed" if full["original_ln_before"] else "update"
        part = {"places": places, **_named(full, _JOIN), "activation": activation, "reads": reads}
        if reads == "normed" and not full["residual_before_ln"]:
            part["residual"] = "read"
        if full["phm_layer"]:
            parts.append({"method": "compacter", **part, **_named(full, _KRONECKER)})
        else:
            parts.append({"method": "bottleneck", **part, "init": full["init_weights"]})
    if full["inv_adapter"] is not None:
        if full["inv_adapter"] != "nice":
            raise _unread(f"inv_adapter = {full['inv_adapter']!r}", "there is no other than nice")
        if architecture.inverts_one_side:
            raise _unread("inv_adapter in an encoder-decoder", "it sits on both sides here, on the encoder's there")
        factor = full["inv_adapter_reduction_factor"]
        parts.append({"method": "invertible", "reduction_factor": factor, "activation": activation})
    if not parts:
        raise _unread("neither mh_adapter nor output_adapter", "nothing would be attached")
    return parts


def _delta_from_hub(full: HubConfig, architecture: HubArchitecture, version: str | None) -> HubConfig:
    targets = [_ATTENTION[letter] for letter in full["attn_matrices"]] if full["selfattn_lora"] else []
    targets += [architecture.intermediate] if full["intermediate_lora"] else []
    targets += [architecture.output] if full["output_lora"] else []
    if full["composition_mode"] == "scale":
        if full["alpha"] != 1 or full["use_gating"]:
            raise _unread("ia3 with alpha or a gate", "its scales stand alone")
        return {"method": "ia3", "outputs": targets, "inputs": [], "leave_out": full["leave_out"]}
    alpha = full["r"] if _forgot_alpha(version) else full["alpha"]
    made = {"rank": full["r"], "dropout": full["dropout"], "targets": targets, "leave_out": full["leave_out"]}
    if full["vera_d"] is not None or full["vera_b"] is not None:
        _needs_no_scale(alpha == full["r"] and not full["use_gating"], "vera")
        return {"method": "dvora" if full["use_dora"] else "vera", **made, "down_scale": full["vera_d"]}
    made["init"] = full["init_weights"] if full["init_weights"] in ("lora", "bert") else "lora"
    if full["use_dora"]:
        _needs_no_scale(alpha == full["r"] and not full["use_gating"], "dora")
        return {"method": "dora", **made, "alpha": alpha}
    # The library's gate stands in place of the scale.
    return {"method": "lora", **made, "gated": full["use_gating"], "alpha": full["r"] if full["use_gating"] else alpha}


def _forgot_alpha(version: str | None) -> bool:
    """Whether the library that wrote it scaled by one, whatever ``alpha`` said."""
    found = re.match(r"adapters\.(\d+)\.(\d+)", version or "")
    return found is not None and (int(found[1]), int(found[2])) < (1, 1)


def _needs_no_scale(is_one: bool, method: str) -> None:
    if not is_one:
        raise ModelError(
            f"{method} with a scale or a gate has another meaning in AdapterHub's library",
            needed="alpha = rank, no gate",
        )


def _renamed(config: Any, table: Mapping[str, str]) -> HubConfig:
    values = config.model_dump(mode="json")
    return {theirs: values[ours] for theirs, ours in table.items()}


def _named(values: HubConfig, table: Mapping[str, str]) -> HubConfig:
    return {ours: values[theirs] for theirs, ours in table.items()}


def _no_counterpart(what: str, reason: str) -> ModelError:
    return ModelError(f"{what} has no counterpart in AdapterHub's library: {reason}")


def _unread(what: str, reason: str) -> ModelError:
    return ModelError(f"the adapter's configuration has {what}, which has no counterpart here: {reason}")
