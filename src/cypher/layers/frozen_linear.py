"""A linear layer that is not trained, in training: laid out once for the processor, forward and backward.

``F.linear`` lays a weight out anew in every call, or takes a library that is slow on this processor; most weights stay
the same while an adapter is trained.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from cypher.layers.kernels import OneDnnLinear, one_dnn_has


class FrozenLinear:
    """``values @ weight.T + bias`` whose gradient goes to the values alone.

    Args:
        weight: ``(out_features, in_features)``, on a processor; a copy is kept, and another one of its transpose.
        bias: ``(out_features,)`` or ``None``.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        # Inference alone would change them in place afterwards, and a copy would go on as if nothing had happened.
        self.made_of = _state_of(weight, bias)
        self.forward_kernel = OneDnnLinear(weight.detach(), None if bias is None else bias.detach(), None)
        self.backward_kernel = OneDnnLinear(weight.detach().t(), None, None)

    def is_made_of(self, weight: Tensor, bias: Tensor | None) -> bool:
        """Whether these are still the weight and bias it was made of, unchanged and not trained."""
        trained = weight.requires_grad or (bias is not None and bias.requires_grad)
        return not trained and self.made_of == _state_of(weight, bias)

    def __call__(self, values: Tensor) -> Tensor:
        """``(…, in_features) -> (…, out_features)`` in the dtype of the weight."""
        if not torch.is_grad_enabled() or not values.requires_grad:
            return self.forward_kernel(values)
        return cast(Tensor, _Product.apply(values, self))  # type: ignore[no-untyped-call]


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, values: Tensor, linear: FrozenLinear) -> Tensor:
        context.linear = linear
        return linear.forward_kernel(values)

    @staticmethod
    @once_differentiable
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return context.linear.backward_kernel(gradient.contiguous()), None


def freezes(weight: Tensor) -> bool:
    """Whether a weight can be laid out here: a plain tensor on a processor, in a dtype that has a kernel."""
    return type(weight.data) is Tensor and weight.device.type == "cpu" and one_dnn_has(weight.dtype)


def _state_of(weight: Tensor, bias: Tensor | None) -> tuple[int, ...]:
    """What changes when a tensor is written to or replaced."""
    return tuple(
        part for tensor in (weight, bias) if tensor is not None for part in (tensor.data_ptr(), tensor._version)
    )
