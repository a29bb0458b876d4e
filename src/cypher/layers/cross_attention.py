"""Attention to a source: queries from the hidden states, keys and values from an encoder's."""

from __future__ import annotations

from torch import Tensor

from cypher.config import InferencePrecision
from cypher.layers.attention import AttentionOutput, BlockContext, FullAttention
from cypher.layers.state import LayerState


class CrossAttention(FullAttention):
    """Every token attends to every kept token of ``context.source`` (Vaswani et al. 2017, section 3.2.3).

    Arguments and errors as in :class:`FullAttention`. Scores count the attention that a *source* token receives, so
    it has none for its own.
    """

    def forward(self, hidden: Tensor, context: BlockContext, state: LayerState | None = None) -> AttentionOutput:
        """``(batch, seq, width)`` in, update of the same shape out; ``state`` keeps the source's keys and values."""
        query = self._heads(self.query(hidden))
        key, value = self._of_source(context, state)
        key, value, mask = self.key_value(key, value, context.source_mask, hidden)
        mixed, _ = self.attend(query, key, value, mask, BlockContext(attention_mask=context.attention_mask, mask=mask))
        return AttentionOutput(self.output(mixed.transpose(1, 2).flatten(2)), None)

    def _of_source(self, context: BlockContext, state: LayerState | None) -> tuple[Tensor, Tensor]:
        """Key and value, ``(batch, key_value_heads, source_seq, head_width)``; worked out once a generation."""
        if state is not None and state.source_key is not None and state.source_value is not None:
            return state.source_key, state.source_value
        assert context.source is not None, "a decoder's context has a source"
        key, value = self._heads(self.key(context.source)), self._heads(self.value(context.source))
        if state is not None:
            state.source_key, state.source_value = key, value
        return key, value

    def pack(self, precision: InferencePrecision) -> None:
        """Lay the four weights out one by one: query and key read different hidden states."""
        for linear in (self.query, self.key, self.value, self.output):
            linear.pack(precision)
