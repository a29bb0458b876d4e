from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from cypher.errors import ConfigError
from cypher.layers import kernels
from cypher.layers.kernels import Int8Linear, OneDnnLinear, PlainLinear, int8_is_exact, pack_linear
from cypher.layers.linear import Linear

needs_int8 = pytest.mark.skipif(not int8_is_exact(), reason="this machine overflows in 8-bit products")
# The smallest cosine between an output row and that of fp32.
PRECISIONS = [("fp32", 0.999999), ("bf16", 0.9999), pytest.param("int8", 0.9995, marks=needs_int8)]
# Rows in front, input and output features: a lone token, odd sizes, no multiple of any vector, the real ones.
SHAPES = [((1,), 384, 384), ((3, 5), 33, 17), ((1, 1), 7, 3), ((4, 37), 384, 1536), ((129,), 1536, 384), ((0,), 8, 4)]


def example(leading: tuple[int, ...], width: int, features: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    values = torch.randn(*leading, width) * torch.rand(*leading, 1) * 4
    return values, torch.randn(features, width) / width**0.5, torch.randn(features)


@pytest.mark.parametrize("activation", [None, "gelu"])
@pytest.mark.parametrize("with_bias", [True, False])
@pytest.mark.parametrize(("leading", "width", "features"), SHAPES)
@pytest.mark.parametrize(("precision", "least"), PRECISIONS)
def test_a_packed_layer_is_the_layer(
    precision: str,
    least: float,
    leading: tuple[int, ...],
    width: int,
    features: int,
    with_bias: bool,
    activation: str | None,
) -> None:
    values, weight, bias = example(leading, width, features)
    packed = pack_linear(weight, bias if with_bias else None, precision, activation)
    assert packed.activated == (activation is not None)
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    with torch.inference_mode():
        found = packed(values.to(dtype))
        expected = F.linear(values, weight, bias if with_bias else None)
        expected = expected if activation is None else F.gelu(expected)
    assert found.dtype == dtype
    assert found.shape == expected.shape
    if found.numel():
        # Of all outputs together: a row of three features alone has no stable direction.
        assert torch.cosine_similarity(found.double().flatten(), expected.double().flatten(), 0) > least


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("activation", [None, "gelu"])
def test_without_a_kernel_the_plain_layer_gives_the_same(dtype: torch.dtype, activation: str | None) -> None:
    values, weight, bias = example((3, 5), 33, 17)
    arguments = weight.to(dtype), bias.to(dtype), activation
    with torch.inference_mode():
        plain, one_dnn = PlainLinear(*arguments)(values.to(dtype)), OneDnnLinear(*arguments)(values.to(dtype))
    torch.testing.assert_close(plain, one_dnn, atol=1e-5 if dtype == torch.float32 else 0.05, rtol=1e-2)


@pytest.mark.parametrize(("has_bf16", "expected"), [(True, OneDnnLinear), (False, PlainLinear)])
def test_bf16_falls_back_where_one_dnn_lacks_it(
    monkeypatch: pytest.MonkeyPatch, has_bf16: bool, expected: type[kernels.PackedLinear]
) -> None:
    monkeypatch.setattr(kernels, "one_dnn_has", lambda dtype: dtype == torch.float32 or has_bf16)
    assert isinstance(pack_linear(torch.ones(4, 8), None, "bf16", None), expected)


@needs_int8
def test_int8_reads_each_token_by_itself() -> None:
    values, weight, bias = example((6,), 384, 96)
    layer = Int8Linear(weight, bias, None)
    with torch.inference_mode():
        together = layer(values)
        torch.testing.assert_close(layer(values[2:3]), together[2:3], atol=1e-6, rtol=1e-6)
        values[0] *= 1e4  # an outlier coarsens its own row only
        torch.testing.assert_close(layer(values)[1:], together[1:], atol=1e-6, rtol=1e-6)


@needs_int8
@pytest.mark.parametrize("scale", [0.0, 1e-30, 1e30])
def test_int8_keeps_rows_of_any_size(scale: float) -> None:
    weight, bias = torch.eye(16), torch.zeros(16)
    values = torch.linspace(-1, 1, 16).unsqueeze(0) * scale
    with torch.inference_mode():
        found = Int8Linear(weight, bias, None)(values)
    torch.testing.assert_close(found, values, atol=scale / 250, rtol=0)


@needs_int8
def test_int8_of_a_feature_without_weights_is_its_bias() -> None:
    with torch.inference_mode():
        found = Int8Linear(torch.zeros(3, 8), torch.tensor([1.0, 2.0, 3.0]), None)(torch.randn(2, 8))
    assert found.tolist() == [[1.0, 2.0, 3.0]] * 2


@pytest.mark.parametrize("precision", ["int4", "auto", ""])
def test_an_unknown_precision_is_refused(precision: str) -> None:
    with pytest.raises(ConfigError, match=f"precision '{precision}': needs one of fp32, bf16, int8"):
        pack_linear(torch.ones(2, 2), None, precision, None)


def has_instructions(flag: str) -> bool:
    """Whether this machine says it has them; only Linux is asked."""
    described = Path("/proc/cpuinfo")
    return described.exists() and flag in described.read_text().split()


@needs_int8
@pytest.mark.skipif(platform.machine() != "x86_64", reason="the instruction sets named are those of x86")
@pytest.mark.parametrize(
    ("instructions", "said"),
    [
        pytest.param(
            "AVX512_CORE_VNNI",
            "exact",
            marks=pytest.mark.skipif(not has_instructions("avx512_vnni"), reason="needs a processor with AVX-512 VNNI"),
        ),
        pytest.param(
            "AVX2_VNNI",
            "exact",
            marks=pytest.mark.skipif(not has_instructions("avx_vnni"), reason="needs a processor with AVX VNNI"),
        ),
        ("AVX2", "needs 8-bit products without overflow (VNNI instructions); take precision"),
    ],
)
def test_int8_is_refused_where_products_overflow(instructions: str, said: str) -> None:
    """A process of its own, since oneDNN reads which instructions it may use once."""
    program = (
        "import torch\n"
        "from cypher.errors import ConfigError\n"
        "from cypher.layers.kernels import pack_linear\n"
        "try:\n"
        "    layer = pack_linear(torch.eye(64), None, 'int8', None)\n"
        "    print('exact' if torch.equal(layer(torch.ones(1, 64)).round(), torch.ones(1, 64)) else 'wrong')\n"
        "except ConfigError as error:\n"
        "    print(error)\n"
    )
    environment = {**os.environ, "ONEDNN_MAX_CPU_ISA": instructions}
    run = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program], env=environment, capture_output=True, text=True, check=True
    )
    assert said in run.stdout


@pytest.mark.parametrize("precision", ["fp32", "bf16", pytest.param("int8", marks=needs_int8)])
def test_packing_frees_the_weight_and_keeps_the_function(precision: str) -> None:
    layer = Linear(384, 96)
    values = torch.randn(2, 9, 384)
    with torch.inference_mode():
        expected = layer(values)
    layer.pack(precision)
    assert layer.weight.numel() == layer.bias.numel() == 0
    with torch.inference_mode():
        found = layer(values.bfloat16() if precision == "bf16" else values).float()
    assert torch.cosine_similarity(found, expected, -1).min() > 0.999
