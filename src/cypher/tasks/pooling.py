"""One vector a row from the states of its tokens, and a head on it."""

from __future__ import annotations

import torch
from torch import Tensor

from cypher.config.classify import Pooling
from cypher.errors import ConfigError
from cypher.layers.linear import Linear
from cypher.models.bert import Bert
from cypher.models.model import Encoded, Head, Model


def pooling_of(wanted: Pooling | None, model: Model) -> Pooling:
    """What is read of ``model`` where a configuration wants nothing else.

    Raises:
        ConfigError: The first token of a decoder, which has seen no other.
    """
    if isinstance(model, Bert):
        return wanted or "mean"
    if wanted == "first":
        raise ConfigError(
            'task.pooling = "first" in a decoder', needed="last or mean: its first token has seen no other token"
        )
    return wanted or "last"


def pool(encoded: Encoded, how: Pooling) -> Tensor:
    """One vector a row, of real tokens alone: neither padding nor what was put in front of a row counts.

    Args:
        encoded: Tokens may have been removed on the way; first and last are those of the kept ones.
        how: The first token, the mean of all, or the last.

    Returns:
        ``(rows, width)`` fp32, a row for each of ``encoded``.
    """
    hidden = encoded.hidden.float()
    real = encoded.mask & (encoded.positions >= 0)
    if how == "mean":
        share = real.float()
        return torch.einsum("rk,rkw->rw", share / share.sum(1, keepdim=True).clamp(min=1), hidden)
    # Kept tokens need not stand in the order of their positions.
    if how == "first":
        place = encoded.positions.masked_fill(~real, encoded.seq).argmin(1)
    else:
        place = encoded.positions.masked_fill(~real, -1).argmax(1)
    return hidden[torch.arange(len(hidden), device=hidden.device), place]


def by_input_row(outputs: Tensor, row_of: Tensor, n_rows: int) -> Tensor:
    """Outputs in the order of the input rows; several of one row are averaged.

    Args:
        outputs: ``(rows, …)``.
        row_of: ``(rows,)`` int64, input row of each.
        n_rows: Rows of the input.

    Returns:
        ``(n_rows, …)``.
    """
    sums = outputs.new_zeros(n_rows, *outputs.shape[1:]).index_add(0, row_of, outputs)
    times = torch.bincount(row_of, minlength=n_rows).clamp(min=1)
    return sums / times.view(-1, *[1] * (outputs.ndim - 1))


class PooledHead(Head):
    """A linear layer on one vector a row.

    Args:
        width: Of the hidden states.
        n_outputs: Numbers a row.
        pooling: What of a row is read.
    """

    def __init__(self, width: int, n_outputs: int, pooling: Pooling) -> None:
        super().__init__()
        self.pooling: Pooling = pooling
        self.scores = Linear(width, n_outputs)
        torch.nn.init.normal_(self.scores.weight, std=0.02)
        torch.nn.init.zeros_(self.scores.bias)

    def forward(self, encoded: Encoded) -> Tensor:
        """``(rows, n_outputs)`` fp32, in the order of ``encoded``."""
        scores: Tensor = self.scores(pool(encoded, self.pooling))
        return scores
