"""Every preset with what it adds to a model."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from cypher.adapters.methods import adapter_of
from cypher.config import PRESETS, UnionConfig, adapter_config
from cypher.errors import ConfigError
from cypher.models.bert import Bert, BertConfig
from cypher.models.model import Model

_WEIGHT_METHODS = {"lora", "dora", "vera", "dvora", "ia3"}


@dataclass(frozen=True, kw_only=True)
class Preset:
    """A preset on one model.

    Args:
        preset: Its name.
        method: Of the preset, or of a union's parts.
        n_parameters: Trained ones; ``None`` where the method has no place in the model.
        share: Of the model's own parameters, in percent.
        folds: Whether it can be folded into the model's weights.
        reason: Why there is no count.
    """

    preset: str
    method: str
    n_parameters: int | None
    share: float | None
    folds: bool
    reason: str | None = None


def list_presets(model: Model | None = None) -> list[Preset]:
    """All presets.

    Args:
        model: Nothing may be attached; ``None`` is one of the sizes of BERT-base.

    Example:
        >>> {each.preset: each.n_parameters for each in list_presets()}["lora"]
        294912
    """
    model = bert_base() if model is None else model
    own = sum(parameter.numel() for parameter in model.parameters())
    found = []
    for name in PRESETS:
        config = adapter_config({"preset": name})
        parts = config.parts if isinstance(config, UnionConfig) else (config,)
        count, reason = None, None
        try:
            count = adapter_of(config).num_params(model)
        except ConfigError as error:
            reason = str(error)
        found.append(
            Preset(
                preset=name,
                method=" + ".join(part.method for part in parts),
                n_parameters=count,
                share=None if count is None else round(100 * count / own, 3),
                folds=all(part.method in _WEIGHT_METHODS for part in parts),
                reason=reason,
            )
        )
    return found


def bert_base() -> Model:
    """A BERT of the published base size; without memory, for counting."""
    with torch.device("meta"):
        return Bert(BertConfig(vocabulary_size=30522, width=768, n_layers=12, n_heads=12, inner_width=3072))
