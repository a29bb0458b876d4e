"""One transformer block: attention, attention to a source where there is one, feed-forward, each joined at its site."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from torch import Tensor, nn

from cypher.layers.attention import AttentionOutput, BlockContext
from cypher.layers.divisible import Divisible, Division
from cypher.layers.live_tokens import set_live_tokens
from cypher.layers.sites import JoinSite, OutputSite
from cypher.layers.state import LayerState
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


class Block(nn.Module, Divisible):
    """Attention, then attention to a source if the block has one, then feed-forward; an :class:`OutputSite` last.

    Args:
        attention: ``(hidden, context, state) -> AttentionOutput``.
        attention_join: Site behind the attention.
        feedforward: ``hidden -> update``.
        feedforward_join: Site behind the feed-forward.
        cross_attention: ``(hidden, context, state) -> AttentionOutput``, to ``context.source``.
        cross_attention_join: Site behind it.
    """

    divisions: ClassVar[Mapping[str, Division]] = {
        "attention_join": "replicate",
        "cross_attention_join": "replicate",
        "feedforward_join": "replicate",
        "output": "replicate",
    }

    def __init__(
        self,
        *,
        attention: nn.Module,
        attention_join: JoinSite,
        feedforward: nn.Module,
        feedforward_join: JoinSite,
        cross_attention: nn.Module | None = None,
        cross_attention_join: JoinSite | None = None,
    ) -> None:
        super().__init__()
        self.attention = attention
        self.attention_join = attention_join
        self.cross_attention = cross_attention
        self.cross_attention_join = cross_attention_join
        self.feedforward = feedforward
        self.feedforward_join = feedforward_join
        self.output = OutputSite()

    def forward(self, hidden: Tensor, context: BlockContext, state: LayerState | None = None) -> BlockOutput:
        """``(batch, seq, width)`` in and out; ``state`` gains what the attention remembers."""
        set_live_tokens(context.attention_mask)
        source = self.attention_join.enter(hidden)
        attended: AttentionOutput = self.attention(source, context, state)
        hidden = self.attention_join(attended.update, hidden, source)
        if self.cross_attention is not None and self.cross_attention_join is not None:
            source = self.cross_attention_join.enter(hidden)
            hidden = self.cross_attention_join(self.cross_attention(source, context, state).update, hidden, source)
        source = self.feedforward_join.enter(hidden)
        hidden = self.feedforward_join(self.feedforward(source), hidden, source)
        hidden = self.output(hidden, context.attention_mask if context.seen is None else context.seen)
        return BlockOutput(hidden=hidden, scores=attended.scores)
