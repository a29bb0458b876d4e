"""Position-wise feed-forward networks: plain (Vaswani et al. 2017, arXiv 1706.03762, section 3.3) and gated."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, ClassVar, Literal

import torch.nn.functional as F
from torch import Tensor, nn

from cypher.layers.divisible import Divisible, Division
from cypher.layers.linear import Linear

if TYPE_CHECKING:
    from cypher.config import InferencePrecision

Activation = Literal["gelu", "gelu_tanh", "relu", "silu"]

ACTIVATIONS: dict[Activation, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "gelu_tanh": lambda values: F.gelu(values, approximate="tanh"),
    "relu": F.relu,
    "silu": F.silu,
}


class FeedForward(nn.Module, Divisible):
    """``down(activation(up(hidden)))``.

    Args:
        width: Of the hidden states.
        inner_width: Between the two linear layers.
        activation: Exact GELU (by erf), its tanh form, ReLU or SiLU.
    """

    divisions: ClassVar[Mapping[str, Division]] = {"up": "column", "down": "row"}

    def __init__(self, *, width: int, inner_width: int, activation: Activation = "gelu") -> None:
        super().__init__()
        self.up = Linear(width, inner_width)
        self.activation: Activation = activation
        self.down = Linear(inner_width, width)

    def forward(self, hidden: Tensor) -> Tensor:
        """``(batch, seq, width) -> (batch, seq, width)``."""
        inner: Tensor = self.up(hidden)
        if self.up.packed is None or not self.up.packed.activated:
            inner = ACTIVATIONS[self.activation](inner)
        update: Tensor = self.down(inner)
        return update

    def evenly(self) -> Mapping[str, int]:
        """Every process has as many features of the middle."""
        return {"inner_width": self.up.out_features}

    def pack(self, precision: InferencePrecision) -> None:
        """Lay both weights out, exact GELU inside the first."""
        self.up.pack(precision, "gelu" if self.activation == "gelu" else None)
        self.down.pack(precision)


class GatedFeedForward(nn.Module, Divisible):
    """``down(activation(gate(hidden)) · up(hidden))`` without biases (Shazeer 2020, arXiv 2002.05202, equation 6).

    Args:
        width: Of the hidden states.
        inner_width: Between the linear layers.
        activation: Of the gate; SiLU in Llama.
    """

    divisions: ClassVar[Mapping[str, Division]] = {"gate": "column", "up": "column", "down": "row"}

    def __init__(self, *, width: int, inner_width: int, activation: Activation = "silu") -> None:
        super().__init__()
        self.gate = Linear(width, inner_width, bias=False)
        self.up = Linear(width, inner_width, bias=False)
        self.activation: Activation = activation
        self.down = Linear(inner_width, width, bias=False)

    def forward(self, hidden: Tensor) -> Tensor:
        """``(batch, seq, width) -> (batch, seq, width)``."""
        update: Tensor = self.down(ACTIVATIONS[self.activation](self.gate(hidden)) * self.up(hidden))
        return update

    def evenly(self) -> Mapping[str, int]:
        """Every process has as many features of the middle."""
        return {"inner_width": self.up.out_features}

    def pack(self, precision: InferencePrecision) -> None:
        """Lay all three weights out for inference."""
        for linear in (self.gate, self.up, self.down):
            linear.pack(precision)
