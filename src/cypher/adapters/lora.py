"""LoRA: low-rank updates of linear layers (Hu et al. 2021, arXiv 2106.09685, section 4.1)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cypher.adapters.adapter import Adapter, check_name
from cypher.config import LoraConfig
from cypher.errors import ConfigError
from cypher.layers.linear import Delta, Linear
from cypher.models.model import Model


class LoraDelta(Delta):
    """``output + alpha / rank · up(down(values))``; zero until trained, because ``up`` starts at zero.

    Args:
        in_features: Of the layer it changes.
        out_features: Of the layer it changes.
        config: Rank, alpha and dropout.
    """

    def __init__(self, in_features: int, out_features: int, config: LoraConfig) -> None:
        super().__init__()
        self.scale = config.alpha / config.rank
        self.dropout = nn.Dropout(config.dropout)
        self.down = nn.Parameter(torch.empty(config.rank, in_features))
        self.up = nn.Parameter(torch.zeros(out_features, config.rank))
        nn.init.kaiming_uniform_(self.down, a=math.sqrt(5))

    def forward(self, values: Tensor, output: Tensor) -> Tensor:
        """``values (…, in_features)`` and ``output (…, out_features)`` to the changed output."""
        inner = F.linear(self.dropout(values), self.down.to(values.dtype)) * self.scale
        # One product that adds onto the output: a separate sum would read and write it once more.
        added = torch.addmm(output.flatten(0, -2), inner.flatten(0, -2), self.up.to(values.dtype).t())
        return added.view_as(output)

    def merged(self, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """``weight + alpha / rank · up @ down``, ``(out_features, in_features)``."""
        return weight + (self.up @ self.down * self.scale).to(weight.dtype), bias


class Lora(Adapter):
    """Low-rank updates on the chosen linear layers of every block.

    Args:
        config: Rank, scale, dropout and which layers.

    Example:
        >>> from cypher.models.bert import Bert, BertConfig
        >>> model = Bert(BertConfig(vocabulary_size=9, width=8, n_layers=1, n_heads=2, inner_width=16))
        >>> Lora(LoraConfig(rank=2, targets=("query",))).attach(model, "mine")
        >>> sorted(Lora.parameters_of(model, "mine"))[0]
        'segments.encoder.0.attention.query.deltas.mine.down'
    """

    def __init__(self, config: LoraConfig) -> None:
        self.config = config

    def attach(self, model: Model, name: str) -> None:
        """Plug fresh updates in; the model's function does not change.

        Raises:
            ConfigError: The name is taken or no name at all, or no layer of the model is a target.
        """
        check_name(name)
        layers = [layer for path, layer in _block_linears(model) if path.rsplit(".", 1)[-1] in self.config.targets]
        if not layers:
            raise ConfigError(f"adapter.targets = {list(self.config.targets)}", needed="a layer of this model")
        if any(name in layer.deltas for layer in layers):
            raise ConfigError(f"an adapter named {name!r} is attached already", change="choose another name")
        for layer in layers:
            layer.deltas[name] = LoraDelta(layer.in_features, layer.out_features, self.config)

    def num_params(self, model: Model) -> int:
        """Number of trained parameters on ``model``, by formula."""
        return sum(
            self.config.rank * (layer.in_features + layer.out_features)
            for path, layer in _block_linears(model)
            if path.rsplit(".", 1)[-1] in self.config.targets
        )


def _block_linears(model: Model) -> list[tuple[str, Linear]]:
    return [(path, layer) for path, layer in model.segments.named_modules() if isinstance(layer, Linear)]
