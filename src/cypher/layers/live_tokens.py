"""Which tokens of the running block are real, for parts deep inside it that see hidden states alone."""

from __future__ import annotations

from contextvars import ContextVar

from torch import Tensor

# Of the thread that runs the block: micro-batches go side by side, a thread each.
_mask: ContextVar[Tensor | None] = ContextVar("live_tokens", default=None)


def set_live_tokens(attention_mask: Tensor) -> None:
    """Say which tokens are real, ``(batch, seq)`` bool; a block does so whenever it begins."""
    _mask.set(attention_mask)


def mean_of_live(values: Tensor) -> Tensor:
    """Mean over the real tokens of each row, ``(batch, seq, features) -> (batch, 1, features)``.

    Outside of a block all tokens are real.
    """
    mask = _mask.get()
    if mask is None:
        return values.mean(1, keepdim=True)
    assert mask.shape == values.shape[:2], "a block says which of its own tokens are real"
    weights = mask.unsqueeze(-1).to(values.dtype)
    return (values * weights).sum(1, keepdim=True) / weights.sum(1, keepdim=True).clamp(min=1)
