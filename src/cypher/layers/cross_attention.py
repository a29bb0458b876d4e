"""Attention to a source: queries from the hidden states, keys and values from an encoder's."""

from __future__ import annotations

from torch import Tensor

from cypher.config import InferencePrecision
from cypher.layers.attention import AttentionOutput, BlockContext, FullAttention
from cypher.layers.linear import Linear


class CrossAttention(FullAttention):
    """Every token attends to every kept token of ``context.source`` (Vaswani et al. 2017, section 3.2.3).

    Arguments and errors as in :class:`FullAttention`. Scores count the attention that a *source* token receives, so
    it has none for its own.
    """

    def forward(self, hidden: Tensor, context: BlockContext, state: object = None) -> AttentionOutput:
        """``(batch, seq, width)`` in, update of the same shape out; ``state`` is not used: the source does not grow."""
        assert context.source is not None, "a decoder's context has a source"
        query = self._heads(self.query(hidden))
        key, value = self._heads(self.key(context.source)), self._heads(self.value(context.source))
        key, value, mask = self.key_value(key, value, context.source_mask)
        mixed, _ = self.attend(query, key, value, mask, BlockContext(attention_mask=context.attention_mask, mask=mask))
        return AttentionOutput(self.output(mixed.transpose(1, 2).flatten(2)), None)

    def pack(self, precision: InferencePrecision) -> None:
        """Lay the four weights out one by one: query and key read different hidden states."""
        for linear in (self.query, self.key, self.value, self.output):
            assert isinstance(linear, Linear)
            linear.pack(precision)
