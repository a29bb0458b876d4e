"""Inference in bf16 on a processor: attention row by row without padding, several times as fast as the fused kernel.

The fused kernel spends most of its time on the softmax. Here a row's products of query and key are written into a
buffer that stays in the cache, powers of two are taken in fp32 without looking for each query's largest first, and
the division is left until the values are mixed. Powers of two do not overflow unless a logit is far from what trained
models give; a row whose sums say that one did is worked out again with the largest taken away (Milakov and
Gimelshein 2018, arXiv 1805.02867, section 2, calls that the safe softmax).
"""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence

import torch
from torch import Tensor

SHORTEST = 64
"""Rows shorter than this are left to the fused kernel: a call for each of them costs more than it saves."""
LONGEST = 768
"""Longer rows too: their products would leave the cache."""
# Numbers of one buffer, as many as the products of a row of 256 tokens with twelve heads.
_TILE = 12 * 256 * 256
# Sums of powers outside have lost digits, or all of them.
_SMALLEST_SUM, _LARGEST_SUM = 2.0**-100, 2.0**100


def row_lengths(attention_mask: Tensor) -> tuple[int, ...] | None:
    """Real tokens of each row; ``None`` where padding is not behind them all.

    Args:
        attention_mask: ``(batch, seq)`` bool, True = a real token.
    """
    lengths = attention_mask.sum(1, keepdim=True)
    in_front = torch.arange(attention_mask.shape[1], device=attention_mask.device) < lengths
    return tuple(lengths.flatten().tolist()) if torch.equal(in_front, attention_mask) else None


class _Buffers(threading.local):
    """Each thread's own, since batches run side by side."""

    def __init__(self) -> None:
        self.products = torch.empty(_TILE, dtype=torch.bfloat16)
        self.powers = torch.empty(_TILE)


_buffers = _Buffers()


def row_attention(query: Tensor, key: Tensor, value: Tensor, lengths: Sequence[int]) -> Tensor:
    """Attention of each row's real tokens to each other.

    Args:
        query: ``(batch, heads, seq, head_width)`` bf16, on a processor.
        key: Likewise.
        value: Likewise.
        lengths: Real tokens of each row, at most ``LONGEST``; padding is behind them.

    Returns:
        ``(batch, heads, seq, head_width)`` bf16; zero for padding.
    """
    batch, heads, seq, head_width = query.shape
    mixed = query.new_zeros(batch, seq, heads, head_width).transpose(1, 2)
    for row, length in enumerate(lengths):
        if not length:
            continue
        together = min(heads, _TILE // length**2)
        for first in range(0, heads, together):
            place = (row, slice(first, first + together), slice(length))
            _attend(query[place], key[place], value[place], mixed[place])
    return mixed


def _attend(query: Tensor, key: Tensor, value: Tensor, mixed: Tensor) -> None:
    """Write the weighted values of some heads of one row, ``(heads, length, head_width)`` each, into ``mixed``."""
    heads, length, head_width = query.shape
    numbers = heads * length * length
    products = _buffers.products[:numbers].view(heads, length, length)
    powers = _buffers.powers[:numbers].view(heads, length, length)
    torch.bmm(query, key.transpose(1, 2), out=products)
    # exp(x) is 2 ** (x · log2 e), and powers of two are the faster function.
    scale = math.log2(math.e) * head_width**-0.5
    sums = powers.copy_(products).mul_(scale).exp2_().sum(-1, keepdim=True)
    smallest, largest = torch.aminmax(sums)
    if not (smallest > _SMALLEST_SUM and largest < _LARGEST_SUM):
        powers.copy_(products).mul_(scale)
        sums = powers.sub_(powers.amax(-1, keepdim=True)).exp2_().sum(-1, keepdim=True)
    torch.div(torch.bmm(products.copy_(powers), value), sums, out=mixed)
