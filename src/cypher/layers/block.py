"""One transformer block: attention and feed-forward, each joined at its site."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor, nn

from cypher.layers.attention import AttentionOutput, BlockContext
from cypher.layers.sites import JoinSite
from cypher.layers.token_sum import TokenSum


@dataclass(frozen=True, kw_only=True)
class BlockOutput:
    """What a block hands on.

    Args:
        hidden: ``(batch, seq, width)``.
        scores: ``(batch, seq)`` fp32, attention each token received; ``None`` unless asked for.
        losses: Extra losses of this block, by name.
    """

    hidden: Tensor
    scores: Tensor | None = None
    losses: Mapping[str, TokenSum] = field(default_factory=dict)


class Block(nn.Module):
    """Attention, then feed-forward.

    Args:
        attention: ``(hidden, context) -> AttentionOutput``.
        attention_join: Site behind the attention.
        feedforward: ``hidden -> update``.
        feedforward_join: Site behind the feed-forward.
    """

    def __init__(
        self,
        *,
        attention: nn.Module,
        attention_join: JoinSite,
        feedforward: nn.Module,
        feedforward_join: JoinSite,
    ) -> None:
        super().__init__()
        self.attention = attention
        self.attention_join = attention_join
        self.feedforward = feedforward
        self.feedforward_join = feedforward_join

    def forward(self, hidden: Tensor, context: BlockContext) -> BlockOutput:
        """``(batch, seq, width)`` in and out."""
        source = self.attention_join.enter(hidden)
        attended: AttentionOutput = self.attention(source, context)
        hidden = self.attention_join(attended.update, hidden, source)
        source = self.feedforward_join.enter(hidden)
        hidden = self.feedforward_join(self.feedforward(source), hidden, source)
        return BlockOutput(hidden=hidden, scores=attended.scores)
