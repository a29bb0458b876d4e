"""VeRA: frozen random matrices for all layers, two trained vectors a layer (Kopiczko et al. 2023, arXiv 2310.11454).

The matrices are drawn from the configuration's seed, so a saved adapter has the vectors alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cypher.adapters.adapter import Adapter
from cypher.adapters.lora import WeightUpdate
from cypher.adapters.places import TargetLinear, linears_of, plug_in
from cypher.config import DvoraConfig, VeraConfig
from cypher.models.model import Model


class FrozenProjections(nn.Module):
    """The two random matrices, as large as the largest layer needs; smaller ones read their first rows and columns.

    Args:
        in_features: Of the widest input.
        out_features: Of the widest output.
        rank: Between them.
        seed: They are drawn from it.
    """

    down: Tensor
    up: Tensor

    def __init__(self, in_features: int, out_features: int, *, rank: int, seed: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        down, up = torch.empty(rank, in_features), torch.empty(out_features, rank)
        for matrix in (down, up):
            nn.init.kaiming_uniform_(matrix, generator=generator)
        self.register_buffer("down", down, persistent=False)
        self.register_buffer("up", up, persistent=False)

    @classmethod
    def of(cls, targets: Sequence[TargetLinear], config: VeraConfig | DvoraConfig) -> FrozenProjections:
        """Those of an adapter on ``targets``."""
        widest_in = max(target.layer.in_features for target in targets)
        widest_out = max(target.layer.out_features for target in targets)
        return cls(widest_in, widest_out, rank=config.rank, seed=config.seed)


def frozen_projections(model: Model, name: str) -> list[Tensor]:
    """The two random matrices behind what is attached as ``name``; none if its method has none."""
    for path, module in model.named_modules():
        if isinstance(module, FrozenProjections) and f".deltas.{name}." in path:
            return [module.down, module.up]
    return []


class VeraDelta(WeightUpdate):
    """``output + up_scale · up(down_scale · down(values))``; zero until trained, because ``up_scale`` starts at zero.

    Args:
        in_features: Of the layer it changes.
        out_features: Of the layer it changes.
        frozen: Shared by all layers.
        config: What ``down_scale`` starts at, and dropout.
    """

    input_dims: ClassVar[Mapping[str, int]] = {}
    output_dims: ClassVar[Mapping[str, int]] = {"up_scale": 0}

    def __init__(
        self, in_features: int, out_features: int, frozen: FrozenProjections, config: VeraConfig | DvoraConfig
    ) -> None:
        super().__init__()
        self.narrow(slice(in_features), slice(out_features))
        self.frozen = frozen
        self.dropout = nn.Dropout(config.dropout)
        self.down_scale = nn.Parameter(torch.full((config.rank,), config.down_scale))
        self.up_scale = nn.Parameter(torch.zeros(out_features))

    def narrow(self, inputs: slice, outputs: slice) -> None:
        """Read the rows and columns of the random matrices that belong to these inputs and outputs."""
        self.inputs, self.outputs = inputs, outputs

    def update(self, values: Tensor) -> Tensor:
        """``(…, in_features) -> (…, out_features)``."""
        down, up = self._projections(values.dtype)
        inner = F.linear(self.dropout(values), down) * self.down_scale.to(values.dtype)
        return F.linear(inner, up) * self.up_scale.to(values.dtype)

    def weight_update(self) -> Tensor:
        """``diag(up_scale) @ up @ diag(down_scale) @ down``."""
        down, up = self._projections(self.up_scale.dtype)
        return (self.up_scale.unsqueeze(1) * up) @ (self.down_scale.unsqueeze(1) * down)

    def _projections(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        return self.frozen.down[:, self.inputs].to(dtype), self.frozen.up[self.outputs].to(dtype)


class Vera(Adapter):
    """Scaled random projections on the chosen linear layers of every block.

    Args:
        config: Rank, seed, which layers.
    """

    def __init__(self, config: VeraConfig) -> None:
        self.config = config

    def attach(self, model: Model, name: str) -> None:
        """Plug fresh updates in; the model's function does not change.

        Raises:
            ConfigError: The name is taken or no name at all, or no layer of the model is a target.
        """
        found = linears_of(model, self.config.targets, leave_out=self.config.leave_out)
        frozen = FrozenProjections.of(found, self.config)
        deltas = [
            (target.layer.deltas, VeraDelta(target.layer.in_features, target.layer.out_features, frozen, self.config))
            for target in found
        ]
        plug_in(model, name, deltas)

    def num_params(self, model: Model) -> int:
        """Number of trained parameters on ``model``, by formula."""
        found = linears_of(model, self.config.targets, leave_out=self.config.leave_out)
        return sum(self.config.rank + target.layer.out_features for target in found)
