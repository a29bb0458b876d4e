"""A frozen layer is the same function with the same gradient, until somebody writes to its weight."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from cypher.layers.frozen_linear import FrozenLinear
from cypher.layers.linear import Linear


def frozen_layer(dtype: torch.dtype, *, bias: bool = True) -> Linear:
    torch.manual_seed(0)
    layer = Linear(48, 80, bias=bias).requires_grad_(False)
    layer.to(dtype)
    layer.freeze()
    assert layer.frozen is not None
    return layer


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
def test_equal_forward_and_backward(dtype: torch.dtype, tolerance: float, bias: bool) -> None:
    layer = frozen_layer(dtype, bias=bias)
    values = torch.randn(3, 7, 48, dtype=dtype, requires_grad=True)
    expected = F.linear(values, layer.weight, layer.bias)
    # A gradient that is a view, as one behind a transposition is.
    towards = torch.randn(7, 3, 80, dtype=dtype).transpose(0, 1)
    (gradient,) = torch.autograd.grad(expected, values, towards)
    output = layer(values)
    assert output.grad_fn is not None
    assert "_Product" in type(output.grad_fn).__name__
    torch.testing.assert_close(output, expected, atol=tolerance, rtol=tolerance)
    torch.testing.assert_close(
        torch.autograd.grad(output, values, towards)[0], gradient, atol=tolerance, rtol=tolerance
    )
    with torch.inference_mode():
        torch.testing.assert_close(layer(values.detach()), expected.detach(), atol=tolerance, rtol=tolerance)


def changed_in_place(layer: Linear) -> None:
    with torch.no_grad():
        layer.weight.mul_(2)


def loaded(layer: Linear) -> None:
    layer.load_state_dict({"weight": layer.weight * 2, "bias": layer.bias + 1})


def replaced(layer: Linear) -> None:
    layer.weight = torch.nn.Parameter(layer.weight * 2, requires_grad=False)


def trained(layer: Linear) -> None:
    layer.requires_grad_()


@pytest.mark.parametrize("change", [changed_in_place, loaded, replaced, trained])
def test_never_stale(change: object) -> None:
    layer, values = frozen_layer(torch.float32), torch.randn(4, 48)
    change(layer)  # type: ignore[operator]
    torch.testing.assert_close(layer(values), F.linear(values, layer.weight, layer.bias))
    if layer.weight.requires_grad:
        layer(values).sum().backward()
        assert layer.weight.grad is not None


def test_what_is_trained_is_not_frozen() -> None:
    layer = Linear(8, 8)
    layer.freeze()
    assert layer.frozen is None
    layer.weight.requires_grad_(False)
    layer.freeze()
    assert layer.frozen is None  # its bias is trained


def test_other_dtypes_go_the_plain_way() -> None:
    layer = frozen_layer(torch.float32)
    assert layer(torch.randn(2, 48, dtype=torch.bfloat16)).dtype == torch.bfloat16
    assert isinstance(layer.frozen, FrozenLinear)
