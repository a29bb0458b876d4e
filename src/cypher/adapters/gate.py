"""A trained weight for a part of an adapter, one a row (UniPELT: Mao et al. 2022, arXiv 2110.07577, section 3.1)."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from cypher.errors import ConfigError
from cypher.layers.linear import Linear
from cypher.layers.live_tokens import mean_of_live
from cypher.models.model import Model


class Gate(nn.Module):
    """The mean, over the real tokens of a row, of ``sigmoid(linear(values))``.

    Args:
        width: Of the values it reads.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear = Linear(width, 1)
        nn.init.normal_(self.linear.weight, std=0.02)
        nn.init.zeros_(self.linear.bias)

    def forward(self, values: Tensor) -> Tensor:
        """``(batch, seq, width) -> (batch, 1, 1)``."""
        return mean_of_live(torch.sigmoid(self.linear(values)))

    @staticmethod
    def num_params(width: int) -> int:
        """Number of parameters of one gate."""
        return width + 1


def refuse_gates_of_decoders(model: Model, segments: Iterable[str]) -> None:
    """Refuse gates in segments that write from left to right.

    Raises:
        ConfigError: One of ``segments`` does.
    """
    if decoders := sorted(set(segments) & set(model.remembers)):
        raise ConfigError(
            f"gates in a {decoders[0]}: they average over a whole row, so a token would see those after it",
            change="use an encoder, or leave gated out",
        )
