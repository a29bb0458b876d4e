"""Attention row by row equals the fused kernel in fp32 as closely as bf16 allows, whatever the logits are."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from cypher.layers.attention import BlockContext, FullAttention, key_mask
from cypher.layers.row_attention import LONGEST, SHORTEST, row_attention, row_lengths


def parts(batch: int, seq: int, *, heads: int = 3, width: int = 32, size: float = 1.0) -> list[torch.Tensor]:
    torch.manual_seed(0)
    return [(torch.randn(batch, heads, seq, width) * size).bfloat16() for _ in range(3)]


@pytest.mark.parametrize("lengths", [[64, 64], [64, 1], [100, 0, 77], [300], [LONGEST]])
def test_rows_equal_the_fused_kernel_in_fp32(lengths: list[int]) -> None:
    seq = max(lengths)
    query, key, value = parts(len(lengths), seq)
    mixed = row_attention(query, key, value, lengths)
    for row, length in enumerate(lengths):
        real = [part[row, :, :length].float() for part in (query, key, value)]
        torch.testing.assert_close(
            mixed[row, :, :length].float(), F.scaled_dot_product_attention(*real), atol=0.02, rtol=0.02
        )
        assert not mixed[row, :, length:].any()


@pytest.mark.parametrize("sign", [1, -1])
def test_logits_beyond_the_range_of_powers_of_two(sign: int) -> None:
    """All powers would be infinite or zero; the largest is taken away first, and the weights are right again."""
    query, key, value = parts(1, 64, size=0.01)
    query[..., 0], key[..., 0] = 400.0, sign * 4.0
    key[0, :, 5, 0] = 8.0 * sign  # one key stands out
    mixed = row_attention(query, key, value, [64]).float()
    expected = F.scaled_dot_product_attention(query.float(), key.float(), value.float())
    assert mixed.isfinite().all()
    torch.testing.assert_close(mixed, expected, atol=1e-4, rtol=0.02)


@pytest.mark.parametrize(
    ("mask", "lengths"),
    [
        ([[1, 1, 1], [1, 0, 0]], (3, 1)),
        ([[1, 1, 0], [0, 0, 0]], (2, 0)),
        ([[0, 1, 1], [1, 1, 1]], None),
        ([[1, 0, 1], [1, 1, 1]], None),
    ],
)
def test_lengths_only_where_padding_is_behind(mask: list[list[int]], lengths: tuple[int, ...] | None) -> None:
    assert row_lengths(torch.tensor(mask).bool()) == lengths


def test_the_attention_takes_the_same_weights_either_way() -> None:
    torch.manual_seed(1)
    attention = FullAttention(width=96, n_heads=3).eval().bfloat16()
    hidden = torch.randn(2, SHORTEST, 96).bfloat16()
    mask = torch.arange(SHORTEST) < torch.tensor([[SHORTEST], [SHORTEST - 20]])
    outputs = []
    for lengths in (None, row_lengths(mask)):
        context = BlockContext(attention_mask=mask, mask=key_mask(mask), lengths=lengths)
        with torch.inference_mode():
            outputs.append(attention(hidden, context).update)
    fused, by_rows = outputs
    assert not torch.equal(fused, by_rows)
    torch.testing.assert_close(by_rows[mask].float(), fused[mask].float(), atol=0.02, rtol=0.02)


def test_a_gradient_goes_the_other_way() -> None:
    attention = FullAttention(width=96, n_heads=3).eval().bfloat16()
    hidden = torch.randn(1, SHORTEST, 96).bfloat16().requires_grad_()
    mask = torch.ones(1, SHORTEST, dtype=torch.bool)
    attention(hidden, BlockContext(attention_mask=mask, mask=None, lengths=(SHORTEST,))).update.sum().backward()
    assert hidden.grad is not None
    assert hidden.grad.any()
