"""Inference kernels: a weight laid out once for the machine's matrix instructions, with the activation fused in."""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from cypher.errors import ConfigError

# The largest magnitude of a signed 8-bit number used for values and weights alike.
LEVELS = 127
# Stands for zero in an unsigned 8-bit number.
MIDDLE = 128
# Added to an fp32 number, leaves no bits for a fraction: the sum is rounded, and its last byte is the integer's.
# Twice as fast as rounding and casting.
ROUNDING = 3 * 2**22


class PackedLinear(ABC):
    """A linear layer that only runs forward.

    Attributes:
        activated: Its output has already passed the activation.
    """

    activated: bool

    @abstractmethod
    def __call__(self, values: Tensor) -> Tensor:
        """``(…, in_features) -> (…, out_features)``, activation included."""

    def plain(self) -> tuple[Tensor, Tensor | None] | None:
        """Weight ``(out_features, in_features)`` and bias as they were given; ``None`` where they were rounded."""
        return None


class PlainLinear(PackedLinear):
    """Where oneDNN has no kernel for this machine or dtype: the layer as it is, in the dtype of the weight.

    Args:
        weight: ``(out_features, in_features)``.
        bias: ``(out_features,)`` or ``None``.
        activation: ``"gelu"`` (exact, by erf) or ``None``.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None, activation: str | None) -> None:
        self.weight = weight.clone()
        self.bias = bias
        self.activated = activation is not None

    def __call__(self, values: Tensor) -> Tensor:
        """``(…, in_features) -> (…, out_features)`` in the dtype of ``values``."""
        output = F.linear(values, self.weight, self.bias)
        return F.gelu(output) if self.activated else output

    def plain(self) -> tuple[Tensor, Tensor | None]:
        """Both as they are."""
        return self.weight, self.bias


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

    def plain(self) -> tuple[Tensor, Tensor | None]:
        """The weight in rows again."""
        return self.weight.to_dense(), self.bias


class Int8Linear(PackedLinear):
    """The products in 8 bits: a scale for each output feature and one for each token.

    A token's scale is its own largest magnitude, so an outlier coarsens no other token, and an answer does not
    depend on what else is in the batch.

    Args:
        weight: ``(out_features, in_features)`` fp32.
        bias: ``(out_features,)`` fp32 or ``None``.
        activation: ``"gelu"`` (exact, by erf) or ``None``.
        output_dtype: ``torch.bfloat16`` if what comes next runs in it.
    """

    def __init__(
        self, weight: Tensor, bias: Tensor | None, activation: str | None, output_dtype: torch.dtype = torch.float32
    ) -> None:
        self.output_dtype = output_dtype
        self.scales = weight.abs().amax(1).clamp(min=torch.finfo(torch.float32).tiny) / LEVELS
        quantised = (weight / self.scales.unsqueeze(1)).round().to(torch.int8)
        self.weight = torch.ops.onednn.qlinear_prepack(quantised, None)
        self.zeros = torch.zeros(len(weight), dtype=torch.int32)
        self.bias = torch.zeros(len(weight)) if bias is None else bias
        self.activated = activation is not None
        # A whole row, since broadcasting a single number is several times as slow.
        self.offset = torch.full((weight.shape[1],), float(ROUNDING + MIDDLE))

    def __call__(self, values: Tensor) -> Tensor:
        """``(…, in_features) -> (…, out_features)`` in ``output_dtype``."""
        rows = values.reshape(-1, values.shape[-1]).float()
        # Two passes that the processor's vectors do fast; abs() would write a copy, and the infinity norm is slow.
        largest = torch.maximum(rows.amax(1, keepdim=True), rows.amin(1, keepdim=True).neg_())
        largest = largest.clamp_(min=torch.finfo(torch.float32).tiny * LEVELS)
        # Unsigned: for signed values oneDNN has no fast kernel on machines with VNNI alone.
        quantised = torch.addcmul(self.offset, rows, LEVELS / largest).view(torch.int32).to(torch.uint8)
        output: Tensor = torch.ops.onednn.qlinear_pointwise(
            quantised, 1.0, MIDDLE, self.weight, self.scales, self.zeros,
            None, 1.0, 0, torch.float32, "none", [], "",
        )  # fmt: skip
        torch.addcmul(self.bias, output, largest / LEVELS, out=output)
        if self.activated:
            torch.ops.aten.gelu_(output)
        return output.view(*values.shape[:-1], len(self.bias)).to(self.output_dtype)


@lru_cache(maxsize=1)
def int8_is_exact() -> bool:
    """Whether this machine multiplies 8-bit numbers without overflow; asked of the kernel itself.

    Older processors add pairs of products in 16 bits, and the largest ones overflow.
    """
    weight = torch.full((16, 64), LEVELS, dtype=torch.int8)
    values = torch.full((16, 64), MIDDLE + LEVELS, dtype=torch.uint8)
    ones, zeros = torch.ones(16), torch.zeros(16, dtype=torch.int32)
    try:
        packed = torch.ops.onednn.qlinear_prepack(weight, None)
        found = torch.ops.onednn.qlinear_pointwise(
            values, 1.0, MIDDLE, packed, ones, zeros, None, 1.0, 0, torch.float32, "none", [], ""
        )
    except (AttributeError, RuntimeError):  # torch was built without oneDNN, or oneDNN has nothing for this machine
        return False
    return bool((found == LEVELS * LEVELS * 64).all())


def pack_linear(
    weight: Tensor,
    bias: Tensor | None,
    precision: str,
    activation: str | None = None,
    output_dtype: torch.dtype = torch.float32,
) -> PackedLinear:
    """Pack one linear layer.

    Args:
        weight: ``(out_features, in_features)`` fp32.
        bias: ``(out_features,)`` fp32 or ``None``.
        precision: ``fp32``, ``bf16`` or ``int8``; sums are fp32 in all.
        activation: ``"gelu"`` or ``None``.
        output_dtype: Of ``int8``; the others give back the dtype they are given.

    Raises:
        ConfigError: The precision has no kernel here.
    """
    dtypes = {"fp32": torch.float32, "bf16": torch.bfloat16, "int8": torch.float32}
    if precision not in dtypes:
        raise ConfigError(f"precision {precision!r}", needed=f"one of {', '.join(dtypes)}")
    weight = weight.to(dtypes[precision])
    bias = None if bias is None else bias.detach().to(dtypes[precision])
    if precision == "int8":
        if not int8_is_exact():
            raise ConfigError(
                "precision int8 on this machine",
                needed="8-bit products without overflow (VNNI instructions)",
                change="take precision auto, fp32 or bf16",
            )
        return Int8Linear(weight, bias, activation, output_dtype)
    kind = OneDnnLinear if one_dnn_has(weight.dtype) else PlainLinear
    return kind(weight, bias, activation)


def one_dnn_has(dtype: torch.dtype) -> bool:
    """Whether oneDNN has kernels for ``dtype`` here."""
    if not torch._C._has_mkldnn:
        return False
    return dtype == torch.float32 or bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
