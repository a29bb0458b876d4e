"""LoRA: low-rank updates of linear layers (Hu et al. 2021, arXiv 2106.09685, section 4.1)."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cypher.adapters.adapter import Adapter
from cypher.adapters.gate import Gate, refuse_gates_of_decoders
from cypher.adapters.places import linears_of, plug_in
from cypher.config import DoraConfig, LoraConfig
from cypher.errors import ModelError
from cypher.layers.linear import Delta
from cypher.models.model import Model


class WeightUpdate(Delta):
    """A delta that is an update of the weight: ``output + weight_update() @ values``."""

    @abstractmethod
    def update(self, values: Tensor) -> Tensor:
        """What is added to the output, ``(…, in_features) -> (…, out_features)``."""

    @abstractmethod
    def weight_update(self) -> Tensor:
        """What it adds to the weight, ``(out_features, in_features)``."""

    def forward(self, values: Tensor, output: Tensor) -> Tensor:
        """``values (…, in_features)`` and ``output (…, out_features)`` to the changed output."""
        return output + self.update(values)

    def merged(self, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """The weight with its update, and the bias as it is."""
        return weight + self.weight_update().to(weight.dtype), bias


class LoraDelta(WeightUpdate):
    """``output + alpha / rank · up(down(values))``; zero until trained, because ``up`` starts at zero.

    Args:
        in_features: Of the layer it changes.
        out_features: Of the layer it changes.
        config: Rank, alpha, dropout, gate and how the two matrices start.
    """

    input_dims: ClassVar[Mapping[str, int]] = {"down": 1, "gate.linear.weight": 1}
    output_dims: ClassVar[Mapping[str, int]] = {"up": 0}

    def __init__(self, in_features: int, out_features: int, config: LoraConfig | DoraConfig) -> None:
        super().__init__()
        self.scale = config.alpha / config.rank
        self.dropout = nn.Dropout(config.dropout)
        self.down = nn.Parameter(torch.empty(config.rank, in_features))
        self.up = nn.Parameter(torch.zeros(out_features, config.rank))
        if config.init == "lora":
            nn.init.kaiming_uniform_(self.down, a=math.sqrt(5))
        else:
            nn.init.normal_(self.down, std=0.02)
            nn.init.normal_(self.up, std=0.02)
        self.gate = Gate(in_features) if isinstance(config, LoraConfig) and config.gated else None
        self.is_mergeable = self.gate is None

    def forward(self, values: Tensor, output: Tensor) -> Tensor:
        """``values (…, in_features)`` and ``output (…, out_features)`` to the changed output."""
        inner = self._inner(values)
        # One product that adds onto the output: a separate sum would read and write it once more.
        added = torch.addmm(output.flatten(0, -2), inner.flatten(0, -2), self.up.to(values.dtype).t())
        return added.view_as(output)

    def update(self, values: Tensor) -> Tensor:
        """``alpha / rank · up(down(values))``, times its gate."""
        return F.linear(self._inner(values), self.up.to(values.dtype))

    def weight_update(self) -> Tensor:
        """``alpha / rank · up @ down``.

        Raises:
            ModelError: A gate weighs the update anew for every row.
        """
        if not self.is_mergeable:
            raise ModelError("a gated update is another one for every row", needed="lora with gated = false to merge")
        return self.up @ self.down * self.scale

    def _inner(self, values: Tensor) -> Tensor:
        inner = F.linear(self.dropout(values), self.down.to(values.dtype)) * self.scale
        return inner if self.gate is None else inner * self.gate(values)


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
            ConfigError: The name is taken or no name at all, no layer of the model is a target, or a gate would look
                ahead.
        """
        found = linears_of(model, self.config.targets, leave_out=self.config.leave_out)
        if self.config.gated:
            refuse_gates_of_decoders(model, [target.segment for target in found])
        deltas = [
            (target.layer.deltas, LoraDelta(target.layer.in_features, target.layer.out_features, self.config))
            for target in found
        ]
        plug_in(model, name, deltas)

    def num_params(self, model: Model) -> int:
        """Number of trained parameters on ``model``, by formula."""
        return sum(
            self.config.rank * (layer.in_features + layer.out_features)
            + (Gate.num_params(layer.in_features) if self.config.gated else 0)
            for _, layer, _ in linears_of(model, self.config.targets, leave_out=self.config.leave_out)
        )
