"""IA³: trained scales of keys, values and the feed-forward's middle (Liu et al. 2022, arXiv 2205.05638)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn

from cypher.adapters.adapter import Adapter
from cypher.adapters.places import linears_of, plug_in
from cypher.config import Ia3Config
from cypher.errors import ConfigError
from cypher.layers.linear import Delta, Linear
from cypher.models.model import Model


class OutputScale(Delta):
    """``scale · output``, bias and all; one until trained.

    Args:
        out_features: Of the layer it changes.
    """

    input_dims: ClassVar[Mapping[str, int]] = {}
    output_dims: ClassVar[Mapping[str, int]] = {"scale": 0}

    def __init__(self, out_features: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(out_features))

    def forward(self, values: Tensor, output: Tensor) -> Tensor:
        """``output (…, out_features)`` to the scaled output."""
        return output * self.scale.to(output.dtype)

    def merged(self, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Rows of the weight, and the bias, scaled."""
        scale = self.scale.to(weight.dtype)
        return weight * scale.unsqueeze(1), None if bias is None else bias * scale


class InputScale(Delta):
    """The layer is given ``scale · values``; one until trained.

    Args:
        in_features: Of the layer it changes.
    """

    enters: ClassVar[bool] = True
    input_dims: ClassVar[Mapping[str, int]] = {"scale": 0}
    output_dims: ClassVar[Mapping[str, int]] = {}

    def __init__(self, in_features: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(in_features))

    def enter(self, values: Tensor) -> Tensor:
        """``(…, in_features)`` in and out."""
        return values * self.scale.to(values.dtype)

    def forward(self, values: Tensor, output: Tensor) -> Tensor:
        """``output`` as it is: the layer was given scaled values."""
        return output

    def merged(self, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Columns of the weight scaled."""
        return weight * self.scale.to(weight.dtype), bias


class Ia3(Adapter):
    """Scales on the chosen linear layers of every block.

    Args:
        config: Which layers' outputs and which layers' inputs.
    """

    def __init__(self, config: Ia3Config) -> None:
        self.config = config

    def attach(self, model: Model, name: str) -> None:
        """Plug fresh scales in; the model's function does not change.

        Raises:
            ConfigError: The name is taken or no name at all, or no layer of the model is a target.
        """
        deltas: list[tuple[nn.ModuleDict, nn.Module]] = [
            (layer.deltas, OutputScale(layer.out_features)) for layer in self._layers(model, self.config.outputs)
        ]
        deltas += [(layer.deltas, InputScale(layer.in_features)) for layer in self._layers(model, self.config.inputs)]
        if not deltas or set(self.config.outputs) & set(self.config.inputs):
            raise ConfigError(
                f"adapter.outputs = {list(self.config.outputs)}, adapter.inputs = {list(self.config.inputs)}",
                needed="at least one layer, and none in both",
            )
        plug_in(model, name, deltas)

    def _layers(self, model: Model, names: tuple[str, ...]) -> list[Linear]:
        return [target.layer for target in linears_of(model, names, leave_out=self.config.leave_out)] if names else []

    def num_params(self, model: Model) -> int:
        """Number of trained parameters on ``model``, by formula."""
        scaled = sum(layer.out_features for layer in self._layers(model, self.config.outputs))
        return scaled + sum(layer.in_features for layer in self._layers(model, self.config.inputs))
