"""DoRA: a weight as magnitude and direction, the direction updated at low rank (Liu et al. 2024, arXiv 2402.09353).

With LoRA's update it is DoRA (equation 5), with VeRA's it is DVoRA (section 5.4).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn

from cypher.adapters.adapter import Adapter
from cypher.adapters.lora import LoraDelta, WeightUpdate
from cypher.adapters.places import TargetLinear, linears_of, plug_in
from cypher.adapters.vera import FrozenProjections, VeraDelta
from cypher.config import DoraConfig, DvoraConfig
from cypher.layers.linear import Delta, Linear
from cypher.models.model import Model


class RowNorms(nn.Module):
    """L2 norm of every row.

    A module of its own so that tensor parallelism can put together the rows that processes have parts of.
    """

    def forward(self, weight: Tensor) -> Tensor:
        """``(rows, columns) -> (rows,)``."""
        norms: Tensor = torch.linalg.vector_norm(weight, dim=1)
        return norms


class DoraDelta(Delta):
    """``magnitude / ‖weight + update‖`` times what weight and update make of the values; the bias is left alone.

    The norm is that of each output's row, and no gradient goes through it (section 4.3).

    Args:
        layer: The linear layer it changes; its weight's norms are what the magnitudes start at.
        direction: The update.
    """

    input_dims: ClassVar[Mapping[str, int]] = {}
    output_dims: ClassVar[Mapping[str, int]] = {"magnitude": 0}

    def __init__(self, layer: Linear, direction: WeightUpdate) -> None:
        super().__init__()
        # In a tuple, so that the layer is no part of its own delta.
        self._layer = (layer,)
        self.direction = direction
        self.row_norms = RowNorms()
        self.magnitude = nn.Parameter(torch.linalg.vector_norm(layer.weight.detach().float(), dim=1))

    def forward(self, values: Tensor, output: Tensor) -> Tensor:
        """``values (…, in_features)`` and ``output (…, out_features)`` to the changed output."""
        bias = self._layer[0].bias
        changed = output + self.direction.update(values)
        factor = self._factor().to(values.dtype)
        if bias is None:
            return changed * factor
        plain = bias.to(values.dtype)
        return (changed - plain) * factor + plain

    def merged(self, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """The scaled sum of weight and update; of the bias only what earlier deltas changed is scaled."""
        factor = self._factor().to(weight.dtype)
        weight = factor.unsqueeze(1) * self.direction.merged(weight, bias)[0]
        own = self._layer[0].bias
        return weight, None if bias is None or own is None else (bias - own) * factor + own

    def _factor(self) -> Tensor:
        with torch.no_grad():
            weight = self._layer[0].weight.float() + self.direction.weight_update()
            norm: Tensor = self.row_norms(weight)
        return self.magnitude / norm


class Dora(Adapter):
    """Magnitudes and low-rank directions on the chosen linear layers of every block.

    Args:
        config: Of LoRA's update or of VeRA's, and which layers.
    """

    def __init__(self, config: DoraConfig | DvoraConfig) -> None:
        self.config = config

    def attach(self, model: Model, name: str) -> None:
        """Plug fresh ones in; the model's function does not change.

        Raises:
            ConfigError: The name is taken or no name at all, or no layer of the model is a target.
        """
        found = linears_of(model, self.config.targets, leave_out=self.config.leave_out)
        directions = self._directions(found)
        deltas = [
            (target.layer.deltas, DoraDelta(target.layer, direction))
            for target, direction in zip(found, directions, strict=True)
        ]
        plug_in(model, name, deltas)

    def _directions(self, found: list[TargetLinear]) -> list[WeightUpdate]:
        config = self.config
        shapes = [(target.layer.in_features, target.layer.out_features) for target in found]
        if isinstance(config, DoraConfig):
            return [LoraDelta(*shape, config) for shape in shapes]
        frozen = FrozenProjections.of(found, config)
        return [VeraDelta(*shape, frozen, config) for shape in shapes]

    def num_params(self, model: Model) -> int:
        """Number of trained parameters on ``model``, by formula."""
        total = 0
        for _, layer, _ in linears_of(model, self.config.targets, leave_out=self.config.leave_out):
            is_lora = isinstance(self.config, DoraConfig)
            direction = self.config.rank * (layer.in_features + layer.out_features)
            total += layer.out_features + (direction if is_lora else self.config.rank + layer.out_features)
        return total
