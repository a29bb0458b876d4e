"""Full attention over scaled dot products (Vaswani et al. 2017, arXiv 1706.03762, section 3.2)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cypher.errors import ConfigError
from cypher.layers.divisible import Divisible, Division
from cypher.layers.kernels import PackedLinear, pack_linear
from cypher.layers.linear import Linear
from cypher.layers.precision import fastest_precision
from cypher.layers.rotary import RotaryTable
from cypher.layers.row_attention import LONGEST, SHORTEST, row_attention
from cypher.layers.sites import KeyValueSite
from cypher.layers.state import LayerState

if TYPE_CHECKING:
    from cypher.config import InferencePrecision


class RowCopies(NamedTuple):
    """All rows of a block are copied, one below the other, ``before`` one of its parts (``Block.PARTS``) runs."""

    before: str
    copies: int


@dataclass(frozen=True, kw_only=True)
class BlockContext:
    """What all blocks of one segment share in one forward.

    Args:
        attention_mask: ``(batch, seq)`` bool, True = keep.
        mask: Bool, broadcastable to ``(batch, heads, queries, keys)``, True = may attend; ``None`` when every query
            may attend to every key, which lets the kernel skip it.
        rotary: Turns queries and keys; ``None`` where positions are in the embedding.
        source: ``(batch, source_seq, width)``, what cross-attention attends to.
        source_mask: Bool, broadcastable to ``(batch, heads, queries, source_seq)``; ``None`` keeps all.
        seen: ``(batch, written + seq)`` bool, the same for all tokens up to now; ``None`` where there is no state.
        written: Tokens in the state before this step.
        capacity: Tokens the state has room for.
        scores: Whether blocks also return how much attention each token received.
        lengths: Real tokens of each row, where each attends to all of its row and padding is behind them; ``None``
            where that is not so.
        copying: What the block that runs next does to its rows on the way; the context is of the rows before that.
    """

    attention_mask: Tensor
    mask: Tensor | None
    rotary: RotaryTable | None = None
    source: Tensor | None = None
    source_mask: Tensor | None = None
    seen: Tensor | None = None
    written: int = 0
    capacity: int = 0
    scores: bool = False
    lengths: tuple[int, ...] | None = None
    copying: RowCopies | None = None

    def copied(self, copies: int) -> BlockContext:
        """The context of as many copies of all rows, one below the other."""
        batch = len(self.attention_mask)

        def copy(tensor: Tensor | None) -> Tensor | None:
            # What has one row for all keeps it.
            return tensor if tensor is None or len(tensor) != batch else torch.cat([tensor] * copies)

        return replace(
            self,
            attention_mask=torch.cat([self.attention_mask] * copies),
            mask=copy(self.mask),
            rotary=None if self.rotary is None else self.rotary.copied(copies),
            source=copy(self.source),
            source_mask=copy(self.source_mask),
            seen=copy(self.seen),
            lengths=None if self.lengths is None else self.lengths * copies,
            copying=None,
        )


def key_mask(attention_mask: Tensor) -> Tensor | None:
    """Mask of an attention in which every query sees every real token, ``(batch, 1, 1, seq)``; ``None`` if all are.

    Args:
        attention_mask: ``(batch, seq)`` bool, True = a real token.
    """
    return None if bool(attention_mask.all()) else attention_mask[:, None, None, :]


def group_mask(attention_mask: Tensor, groups: Tensor) -> Tensor:
    """Mask of an attention in which texts share their beginning and do not see each other, ``(batch, 1, seq, seq)``.

    Args:
        attention_mask: ``(batch, seq)`` bool, True = a real token.
        groups: ``(batch, seq)`` int64, 0 for what they share.
    """
    seen = (groups[:, None, :] == 0) | (groups[:, None, :] == groups[:, :, None])
    # Padding sees itself: a softmax over nothing would be NaN.
    itself = torch.eye(groups.shape[1], dtype=torch.bool, device=groups.device)
    return ((seen & attention_mask[:, None, :]) | itself)[:, None]


def causal_mask(attention_mask: Tensor, *, queries: int) -> Tensor | None:
    """Mask of an attention in which a query sees the real tokens up to itself, ``(batch or 1, 1, queries, keys)``.

    Args:
        attention_mask: ``(batch, keys)`` bool; the queries are the last of them.
        queries: How many.
    """
    keys = attention_mask.shape[1]
    real = key_mask(attention_mask)
    if queries == 1:
        return real
    place = torch.arange(keys, device=attention_mask.device)
    earlier = place <= place[keys - queries :].unsqueeze(1)
    return earlier[None, None] if real is None else earlier & real


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


class FullAttention(nn.Module, Divisible):
    """Every token attends to every token that the mask allows.

    Args:
        width: Of the hidden states.
        n_heads: Must divide ``width``.
        n_key_value_heads: Heads of keys and values, each shared by as many queries (Ainslie et al. 2023,
            arXiv 2305.13245); must divide ``n_heads``. ``None`` is ``n_heads``.
        bias: Whether the four linear layers add a bias.
        dropout: Share of the attention probabilities set to zero in training.

    Raises:
        ConfigError: ``n_heads`` does not divide ``width``, or ``n_key_value_heads`` does not divide ``n_heads``.
    """

    divisions: ClassVar[Mapping[str, Division]] = {
        "query": "column",
        "key": "column",
        "value": "column",
        "output": "row",
        "key_value": "replicate",
    }

    def __init__(
        self,
        *,
        width: int,
        n_heads: int,
        n_key_value_heads: int | None = None,
        bias: bool = True,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if width % n_heads:
            raise ConfigError(f"width {width} with {n_heads} heads", needed="a width that n_heads divides")
        self.n_heads, self.head_width, self.dropout = n_heads, width // n_heads, dropout
        self.n_key_value_heads = n_key_value_heads or n_heads
        if n_heads % self.n_key_value_heads:
            raise ConfigError(
                f"{n_heads} heads with {n_key_value_heads} heads of keys and values",
                needed="a number that divides them",
            )
        narrow = self.n_key_value_heads * self.head_width
        self.query = Linear(width, width, bias=bias)
        self.key = Linear(width, narrow, bias=bias)
        self.value = Linear(width, narrow, bias=bias)
        self.output = Linear(width, width, bias=bias)
        self.key_value = KeyValueSite()
        self.column_means = ColumnMeans()
        self.packed_inputs: PackedLinear | None = None

    def forward(self, hidden: Tensor, context: BlockContext, state: LayerState | None = None) -> AttentionOutput:
        """``(batch, seq, width)`` in, update of the same shape out; ``state`` gains the keys and values."""
        query, key, value = (self._heads(part) for part in self._project(hidden))
        if context.rotary is not None:
            query, key = context.rotary.rotate(query), context.rotary.rotate(key)
        if state is not None:
            key, value = state.write(key, value, start=context.written, capacity=context.capacity)
        key, value, mask = self.key_value(key, value, context.mask, hidden)
        mixed, scores = self.attend(query, key, value, mask, context)
        return AttentionOutput(self.output(mixed.transpose(1, 2).flatten(2)), scores)

    def attend(
        self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, context: BlockContext
    ) -> tuple[Tensor, Tensor | None]:
        """Weigh the values, by the path that suits.

        Args:
            query: ``(batch, heads, queries, head_width)``.
            key: ``(batch, key_value_heads, keys, head_width)``.
            value: Likewise.
            mask: As in the context, over all keys.
            context: Says whether scores are asked for.

        Returns:
            ``(batch, heads, queries, head_width)``, and scores ``(batch, seq)`` or ``None``.
        """
        if self.n_key_value_heads != self.n_heads:
            shared = self.n_heads // self.n_key_value_heads
            key, value = key.repeat_interleave(shared, 1), value.repeat_interleave(shared, 1)
        dropout = self.dropout if self.training else 0.0
        if context.scores:
            logits = query @ key.transpose(-1, -2) / math.sqrt(self.head_width)
            if mask is not None:
                logits = logits.masked_fill(~mask, float("-inf"))
            # A row without any kept key would be NaN; it attends to nothing instead, as in the fused kernel.
            probabilities = logits.float().softmax(-1).nan_to_num(0.0)
            scores = self.column_means(probabilities, context.attention_mask)[:, -query.shape[2] :]
            return F.dropout(probabilities, dropout).to(value.dtype) @ value, scores
        if self.training:
            return _differentiable_attention(query, key, value, mask, dropout), None
        # What is plugged in may have put keys in front or changed the mask; the fused kernel takes any.
        if context.lengths is not None and mask is context.mask and _suits_rows(query, key):
            return row_attention(query, key, value, context.lengths), None
        return F.scaled_dot_product_attention(query, key, value, attn_mask=mask, dropout_p=dropout), None

    def evenly(self) -> Mapping[str, int]:
        """A head is never cut."""
        return {"n_heads": self.n_heads, "n_key_value_heads": self.n_key_value_heads}

    def pack(self, precision: InferencePrecision) -> None:
        """Lay query, key and value out as one product: one pass over the hidden states, rounded to 8 bits once."""
        if not all(linear.is_mergeable for linear in (self.query, self.key, self.value)):
            for linear in (self.query, self.key, self.value, self.output):
                linear.pack(precision)
            return
        # Attention's own products have no 8-bit form, so they run in what is fastest.
        is_int8_beside_bf16 = precision == "int8" and fastest_precision() == "bf16"
        released = [linear.release() for linear in (self.query, self.key, self.value)]
        biases = [bias for _, bias in released if bias is not None]
        self.packed_inputs = pack_linear(
            torch.cat([weight for weight, _ in released]),
            torch.cat(biases) if biases else None,
            precision,
            output_dtype=torch.bfloat16 if is_int8_beside_bf16 else torch.float32,
        )
        self.output.pack(precision)

    def _project(self, hidden: Tensor) -> tuple[Tensor, ...]:
        """Query ``(batch, seq, width)``; key and value, ``(batch, seq, key_value_heads · head_width)`` each."""
        if self.packed_inputs is not None:
            narrow = self.n_key_value_heads * self.head_width
            return torch.split(self.packed_inputs(hidden), [self.n_heads * self.head_width, narrow, narrow], dim=-1)
        return self.query(hidden), self.key(hidden), self.value(hidden)

    def _heads(self, values: Tensor) -> Tensor:
        """``(batch, seq, heads · head_width) -> (batch, heads, seq, head_width)``."""
        batch, seq, _ = values.shape
        return values.view(batch, seq, -1, self.head_width).transpose(1, 2)


def _suits_rows(query: Tensor, key: Tensor) -> bool:
    return (
        query.dtype == torch.bfloat16
        and query.device.type == "cpu"
        and SHORTEST <= query.shape[2] <= LONGEST
        and key.shape == query.shape
        and not torch.is_grad_enabled()
    )


def _differentiable_attention(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, dropout: float) -> Tensor:
    """The same function for training: on CPUs the fused kernel's backward is several times slower than this."""
    logits = query @ (key * query.shape[-1] ** -0.5).transpose(-1, -2)
    if mask is not None:
        # Outside of the graph and in place: what is masked has probability 0, so its gradient is 0 as it is.
        with torch.no_grad():
            logits.masked_fill_(~mask, float("-inf"))
    return F.dropout(logits.softmax(-1), dropout) @ value
