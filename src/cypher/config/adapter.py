"""``[adapter]``: the small part that is trained while the model stays frozen; one method, or a preset by its name."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, TypeAdapter, ValidationError

from cypher.config.adapter_deltas import DoraConfig, DvoraConfig, Ia3Config, LoraConfig, VeraConfig
from cypher.config.adapter_plugs import (
    BottleneckConfig,
    CompacterConfig,
    InvertibleConfig,
    PrefixConfig,
    PromptConfig,
    ReftConfig,
)
from cypher.config.presets import OLD_NAMES, PRESETS
from cypher.config.section import Section, refusal
from cypher.errors import nearest

PartConfig = Annotated[
    LoraConfig
    | DoraConfig
    | VeraConfig
    | DvoraConfig
    | Ia3Config
    | BottleneckConfig
    | CompacterConfig
    | InvertibleConfig
    | PrefixConfig
    | PromptConfig
    | ReftConfig,
    Field(discriminator="method"),
]


class UnionConfig(Section):
    """Several methods as one adapter, for example mix-and-match (He et al. 2021, arXiv 2110.04366)."""

    method: Literal["union"] = "union"
    parts: tuple[Annotated[PartConfig, BeforeValidator(lambda given: _resolved(given))], ...] = Field(min_length=1)
    """Its methods, attached in this order; each may be a preset."""


METHODS = (
    "lora", "dora", "vera", "dvora", "ia3", "bottleneck", "compacter", "invertible", "prefix", "prompt", "reft",
    "union",
)  # fmt: skip


def _resolved(given: Any) -> Any:
    """A preset in full, with what the recipe says otherwise; a section without a method is LoRA."""
    if not isinstance(given, dict):
        return given
    values = dict(given)
    preset = values.pop("preset", None)
    if preset is not None:
        name = OLD_NAMES.get(preset, preset)
        if name not in PRESETS:
            raise ValueError(f"no preset is called {preset!r}; {nearest(preset, [*PRESETS, *OLD_NAMES])}")
        full = PRESETS[name]
        if values.get("method", full["method"]) != full["method"]:
            raise ValueError(f"preset {preset} is the method {full['method']}; drop method or preset")
        return {**full, **values}
    values.setdefault("method", "lora")
    if values["method"] not in METHODS:
        raise ValueError(f"no method is called {values['method']!r}; {nearest(str(values['method']), METHODS)}")
    return values


AdapterConfig = Annotated[
    PartConfig | UnionConfig,
    Field(discriminator="method"),
    BeforeValidator(_resolved),
]
"""Every adapter method; the ``method`` key chooses, or ``preset`` names a method with its settings."""

_ADAPTER: TypeAdapter[AdapterConfig] = TypeAdapter(AdapterConfig)


def adapter_config(values: dict[str, Any]) -> AdapterConfig:
    """A method's configuration from plain values, as a recipe or a saved adapter has them.

    Raises:
        ConfigError: A key is unknown or a value cannot work.

    Example:
        >>> adapter_config({"preset": "seq_bn", "reduction_factor": 8}).reduction_factor
        8.0
    """
    try:
        return _ADAPTER.validate_python(values)
    except ValidationError as error:
        raise refusal(error, AdapterConfig, where="adapter") from None
