"""The hidden states between divided bricks: the same in every process, or a share of the tokens in each."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast

from torch import Tensor, nn

from cypher.layers.attention import AttentionOutput, BlockContext
from cypher.layers.block import Block
from cypher.layers.cross_attention import CrossAttention
from cypher.parallel.exchange import Peers

TOKENS = 1
"""Dim of the tokens in hidden states, ``(batch, seq, width)``."""


class Stream(ABC):
    """What happens to hidden states on their way into and out of a brick that makes summands.

    Args:
        peers: That make the other summands.
    """

    def __init__(self, peers: Peers) -> None:
        self.peers = peers

    @abstractmethod
    def enter(self, hidden: Tensor) -> Tensor:
        """What the brick is given, ``(batch, seq, width)``, all tokens in every process."""

    @abstractmethod
    def leave(self, update: Tensor) -> Tensor:
        """What becomes of its summand, ``(batch, seq, width)``."""

    def surround(self, brick: nn.Module) -> None:
        """Do both around every forward of a brick."""

        def before(module: nn.Module, given: tuple[Any, ...]) -> tuple[Any, ...]:
            hidden, *others = given
            if isinstance(module, CrossAttention):
                others[0] = self._with_source(others[0])
            return (self.enter(hidden), *others)

        def behind(module: nn.Module, given: object, made: Any) -> Any:
            if isinstance(made, AttentionOutput):
                return made._replace(update=self.leave(made.update))
            return self.leave(made)

        brick.register_forward_pre_hook(before)
        brick.register_forward_hook(behind)

    def _with_source(self, context: BlockContext) -> BlockContext:
        """What an encoder has made is the same everywhere, and each process's heads read it."""
        return context if context.source is None else replace(context, source=self.peers.spread(context.source))


class SameEverywhere(Stream):
    """Everyone has all tokens."""

    def enter(self, hidden: Tensor) -> Tensor:
        """The same."""
        return self.peers.spread(hidden)

    def leave(self, update: Tensor) -> Tensor:
        """The sum."""
        return self.peers.summed(update)


class ShareOfTokens(Stream):
    """Everyone has a share of the tokens, padded to the same length in all.

    Norms, joins and what is plugged into them work on the share; the padding never leaves a process.
    """

    length = 0
    """Tokens of the block that is running."""

    def enter(self, hidden: Tensor) -> Tensor:
        """All tokens."""
        return self.peers.spread_shares(hidden, dim=TOKENS, length=self.length)

    def leave(self, update: Tensor) -> Tensor:
        """A share of the sum."""
        return self.peers.summed_shares(update, dim=TOKENS)

    def divide_rows(self, blocks: Sequence[nn.Module]) -> None:
        """Share tokens out before the first of some blocks that follow each other, and put them together behind them.

        Args:
            blocks: Of one segment; what is put together at their sites has been said already.
        """

        def before(block: nn.Module, given: tuple[Any, ...]) -> tuple[Any, ...]:
            hidden, context, *others = given
            self.length = context.attention_mask.shape[1]
            return (self.peers.cut(hidden, dim=TOKENS) if block is blocks[0] else hidden, context, *others)

        def behind(site: nn.Module, given: object, hidden: Tensor) -> Tensor:
            return self._whole(hidden)

        for block in blocks:
            block.register_forward_pre_hook(before)
        # The last thing that a block does, and inside of its forward: a pipeline sends what that returns.
        cast(Block, blocks[-1]).output.register_forward_hook(behind)

    def put_together(self, site: nn.Module) -> None:
        """Let what is plugged into a site see all tokens; everyone does the same with them."""

        def before(site: nn.Module, given: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            whole = {id(values): self._whole(values) for values in given if values.is_floating_point()}
            return tuple(whole.get(id(values), values) for values in given)

        def behind(site: nn.Module, given: object, made: Tensor) -> Tensor:
            return self.peers.cut(made, dim=TOKENS)

        site.register_forward_pre_hook(before)
        site.register_forward_hook(behind)

    def _whole(self, hidden: Tensor) -> Tensor:
        return self.peers.joined(hidden, dim=TOKENS, length=self.length)
