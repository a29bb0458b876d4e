"""Models known by their sizes alone: what can be planned before there are weights. One file each in ``presets/``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from importlib import resources
from typing import Any

import torch
from pydantic import BaseModel

from cypher import toml
from cypher.models.bert import Bert, BertConfig
from cypher.models.llama import Llama, LlamaConfig
from cypher.models.model import Model
from cypher.models.seq2seq import Seq2Seq, Seq2SeqConfig

_ARCHITECTURES: dict[str, tuple[type[BaseModel], Callable[[Any], Model]]] = {
    "bert": (BertConfig, Bert),
    "llama": (LlamaConfig, Llama),
    "seq2seq": (Seq2SeqConfig, Seq2Seq),
}


@cache
def presets() -> Mapping[str, Mapping[str, Any]]:
    """All of them by name: ``description``, ``architecture`` and ``sizes``.

    Example:
        >>> presets()["llama-10b"]["architecture"]
        'llama'
    """
    files = (file for file in resources.files("cypher.models").joinpath("presets").iterdir())
    texts = {file.name.removesuffix(".toml"): file.read_text("utf-8") for file in files if file.name.endswith(".toml")}
    return {name: toml.loads(text) for name, text in sorted(texts.items())}


def preset_model(name: str) -> Model:
    """A model without memory for its weights.

    Args:
        name: Of :func:`presets`.

    Returns:
        On the meta device.

    Example:
        >>> sum(parameter.numel() for parameter in preset_model("llama-10b").parameters())
        10127544320
    """
    preset = presets()[name]
    config, build = _ARCHITECTURES[preset["architecture"]]
    with torch.device("meta"):
        return build(config.model_validate(preset["sizes"]))
