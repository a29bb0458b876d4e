"""Inference kernels: a weight laid out once for the machine's matrix instructions, with the activation fused in."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from cypher.errors import ConfigError


class PackedLinear(ABC):
    """A linear layer that only runs forward.

    Attributes:
        activated: Its output has already passed the activation.
    """

    activated: bool

    @abstractmethod
    def __call__(self, values: Tensor) -> Tensor:
        """``(…, in_features) -> (…, out_features)``, activation included."""


class OneDnnLinear(PackedLinear):
    """fp32 or bf16 through oneDNN with the weight already in its blocked layout.

    ``F.linear`` lays the weight out anew in every call, and runs GELU as a pass of its own over memory.

    Args:
        weight: ``(out_features, in_features)`` in the kernel's dtype.
        bias: ``(out_features,)`` or ``None``.
        activation: ``"gelu"`` (exact, by erf) or ``None``.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None, activation: str | None) -> None:
        self.weight = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous())
        self.bias = bias
        self.activated = activation is not None
        self.attributes: tuple[str, list[float], str] = (activation, [], "none") if activation else ("none", [], "")

    def __call__(self, values: Tensor) -> Tensor:
        """``(…, in_features) -> (…, out_features)`` in the dtype of ``values``."""
        return torch.ops.mkldnn._linear_pointwise(  # type: ignore[no-any-return]
            values, self.weight, self.bias, *self.attributes
        )


def pack_linear(weight: Tensor, bias: Tensor | None, precision: str, activation: str | None) -> PackedLinear:
    """Pack one linear layer.

    Args:
        weight: ``(out_features, in_features)`` fp32.
        bias: ``(out_features,)`` fp32 or ``None``.
        precision: ``fp32`` or ``bf16``.
        activation: ``"gelu"`` or ``None``.

    Raises:
        ConfigError: The precision has no kernel here.
    """
    dtypes = {"fp32": torch.float32, "bf16": torch.bfloat16}
    if precision not in dtypes:
        raise ConfigError(f"precision {precision!r}", needed=f"one of {', '.join(dtypes)}")
    dtype = dtypes[precision]
    return OneDnnLinear(weight.to(dtype), None if bias is None else bias.detach().to(dtype), activation)
