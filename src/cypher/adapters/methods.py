"""From a configuration to its method."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tokenizers import Tokenizer

from cypher.adapters.adapter import Adapter
from cypher.adapters.bottleneck import Bottleneck
from cypher.adapters.compacter import Compacter
from cypher.adapters.dora import Dora
from cypher.adapters.ia3 import Ia3
from cypher.adapters.invertible import Invertible
from cypher.adapters.lora import Lora
from cypher.adapters.prefix import Prefix
from cypher.adapters.prompt import Prompt
from cypher.adapters.reft import Reft
from cypher.adapters.union import Union
from cypher.adapters.vera import Vera
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
)

METHODS: dict[type[Any], Callable[..., Adapter]] = {
    LoraConfig: Lora,
    DoraConfig: Dora,
    VeraConfig: Vera,
    DvoraConfig: Dora,
    Ia3Config: Ia3,
    BottleneckConfig: Bottleneck,
    CompacterConfig: Compacter,
    InvertibleConfig: Invertible,
    PrefixConfig: Prefix,
    ReftConfig: Reft,
}


def adapter_of(config: AdapterConfig, *, tokenizer: Tokenizer | None = None) -> Adapter:
    """The method that ``config`` configures.

    Args:
        config: Of any method.
        tokenizer: Of the model; needed by a prompt that starts at a text.

    Example:
        >>> from cypher.config import adapter_config
        >>> type(adapter_of(adapter_config({"preset": "houlsby"}))).__name__
        'Bottleneck'
    """
    if isinstance(config, UnionConfig):
        return Union([adapter_of(part, tokenizer=tokenizer) for part in config.parts])
    if isinstance(config, PromptConfig):
        return Prompt(config, tokenizer)
    return METHODS[type(config)](config)
