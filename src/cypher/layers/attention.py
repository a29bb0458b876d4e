"""Full attention over scaled dot products (Vaswani et al. 2017, arXiv 1706.03762, section 3.2)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cypher.errors import ConfigError
from cypher.layers.kernels import PackedLinear, pack_linear
from cypher.layers.linear import Linear
from cypher.layers.precision import fastest_precision
from cypher.layers.sites import KeyValueSite

if TYPE_CHECKING:
    from cypher.config import InferencePrecision


@dataclass(frozen=True, kw_only=True)
class BlockContext:
    """What all blocks of one forward share.

    Args:
        attention_mask: ``(batch, seq)`` bool, True = keep.
        key_mask: ``(batch, 1, 1, seq)`` bool for the attention; ``None`` when every token is kept, which lets the
            kernel skip the mask.
        scores: Whether blocks also return how much attention each token received.
    """

    attention_mask: Tensor
    key_mask: Tensor | None
    scores: bool = False


class AttentionOutput(NamedTuple):
    """An attention's update ``(batch, seq, width)`` and, if asked for, its scores ``(batch, seq)`` fp32."""

    update: Tensor
    scores: Tensor | None


class ColumnMeans(nn.Module):
    """How much attention each token received: the mean over heads and live queries (LTP, arXiv 2107.00910, eq. 2).

    A module of its own so that tensor parallelism can reduce it over the heads of all ranks by name.
    """

    def forward(self, probabilities: Tensor, attention_mask: Tensor) -> Tensor:
        """Average the columns.

        Args:
            probabilities: ``(batch, heads, queries, keys)`` after the softmax.
            attention_mask: ``(batch, queries)`` bool; padded queries do not count.

        Returns:
            ``(batch, keys)`` fp32.
        """
        live = attention_mask.float()
        columns = torch.einsum("bhqk,bq->bk", probabilities.float(), live)
        return columns / (live.sum(1, keepdim=True).clamp(min=1) * probabilities.shape[1])


class FullAttention(nn.Module):
    """Every token attends to every kept token.

    Args:
        width: Of the hidden states.
        n_heads: Must divide ``width``.
        dropout: Share of the attention probabilities set to zero in training.

    Raises:
        ConfigError: ``n_heads`` does not divide ``width``.
    """

    def __init__(self, *, width: int, n_heads: int, dropout: float = 0.0) -> None:
        super().__init__()
        if width % n_heads:
            raise ConfigError(f"width {width} with {n_heads} heads", needed="a width that n_heads divides")
        self.n_heads, self.head_width, self.dropout = n_heads, width // n_heads, dropout
        self.query = Linear(width, width)
        self.key = Linear(width, width)
        self.value = Linear(width, width)
        self.output = Linear(width, width)
        self.key_value = KeyValueSite()
        self.column_means = ColumnMeans()
        self.packed_inputs: PackedLinear | None = None

    def forward(self, hidden: Tensor, context: BlockContext) -> AttentionOutput:
        """``(batch, seq, width)`` in, update of the same shape out."""
        query, key, value = (self._heads(part) for part in self._project(hidden))
        key, value, mask = self.key_value(key, value, context.key_mask)
        dropout = self.dropout if self.training else 0.0
        scores = None
        if context.scores:
            logits = query @ key.transpose(-1, -2) / math.sqrt(self.head_width)
            if mask is not None:
                logits = logits.masked_fill(~mask, float("-inf"))
            # A row without any kept key would be NaN; it attends to nothing instead, as in the fused kernel.
            probabilities = logits.float().softmax(-1).nan_to_num(0.0)
            scores = self.column_means(probabilities, context.attention_mask)[:, -hidden.shape[1] :]
            mixed = F.dropout(probabilities, dropout).to(value.dtype) @ value
        elif self.training:
            mixed = _differentiable_attention(query, key, value, mask, dropout)
        else:
            mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, dropout_p=dropout)
        return AttentionOutput(self.output(mixed.transpose(1, 2).flatten(2)), scores)

    def pack(self, precision: InferencePrecision) -> None:
        """Lay query, key and value out as one product: one pass over the hidden states, rounded to 8 bits once."""
        # Attention's own products have no 8-bit form, so they run in what is fastest.
        is_int8_beside_bf16 = precision == "int8" and fastest_precision() == "bf16"
        released = [linear.release() for linear in (self.query, self.key, self.value)]
        self.packed_inputs = pack_linear(
            torch.cat([weight for weight, _ in released]),
            torch.cat([bias for _, bias in released if bias is not None]),
            precision,
            output_dtype=torch.bfloat16 if is_int8_beside_bf16 else torch.float32,
        )
        self.output.pack(precision)

    def _project(self, hidden: Tensor) -> tuple[Tensor, ...]:
        """Query, key and value, each ``(batch, seq, width)``."""
        if self.packed_inputs is not None:
            return self.packed_inputs(hidden).chunk(3, dim=-1)
        return self.query(hidden), self.key(hidden), self.value(hidden)

    def _heads(self, values: Tensor) -> Tensor:
        """``(batch, seq, width) -> (batch, heads, seq, head_width)``."""
        batch, seq, _ = values.shape
        return values.view(batch, seq, self.n_heads, self.head_width).transpose(1, 2)


def _differentiable_attention(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, dropout: float) -> Tensor:
    """The same function for training: on CPUs the fused kernel's backward is several times slower than this."""
    logits = query @ (key * query.shape[-1] ** -0.5).transpose(-1, -2)
    if mask is not None:
        # Outside of the graph and in place: what is masked has probability 0, so its gradient is 0 as it is.
        with torch.no_grad():
            logits.masked_fill_(~mask, float("-inf"))
    return F.dropout(logits.softmax(-1), dropout) @ value
