"""Cross-entropy over a vocabulary, a few tokens at a time: the logits of a whole batch never exist at once."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from cypher.models.model import Encoded, LanguageHead

# Logits that may exist at once; in fp32 this many take 64 MiB.
MOST_LOGITS = 2**24
_NO_TARGET = -100


class TokenLosses(NamedTuple):
    """What each token costs.

    Attributes:
        loss: ``(rows, seq)`` fp32, negative log-likelihood in nats, label smoothing included; 0 where masked out.
        correct: ``(rows, seq)`` bool, the target is the likeliest token.
    """

    loss: Tensor
    correct: Tensor


def vocabulary_losses(
    head: LanguageHead,
    encoded: Encoded,
    targets: Tensor,
    *,
    label_smoothing: float = 0.0,
    most_logits: int | None = None,
) -> TokenLosses:
    """Cross-entropy of every token, its logits made and forgotten in stretches of the rows.

    Where a gradient is wanted, a stretch's logits are made again in the backward pass (Chen et al. 2016, arXiv
    1604.06174): one projection more, and a memory that does not grow with tokens times vocabulary.

    Args:
        head: Of the language; ``(rows, seq, vocabulary)`` logits.
        encoded: Only what has a target, as :meth:`Encoded.at` gives it; tokens outside of its mask cost nothing.
        targets: ``(rows, seq)`` int64.
        label_smoothing: Share of the target's probability that is spread over all tokens (Szegedy et al. 2016, arXiv
            1512.00567, section 7).
        most_logits: Numbers that may exist at once, but at least those of one token a row; ``None``: ``MOST_LOGITS``.
    """
    rows, seq = targets.shape
    wanted = targets.where(encoded.mask, _NO_TARGET)

    def stretch(hidden: Tensor, start: int) -> tuple[Tensor, Tensor]:
        end = start + hidden.shape[1]
        part = replace(
            encoded, hidden=hidden, mask=encoded.mask[:, start:end], positions=encoded.positions[:, start:end],
            seq=end - start,
        )  # fmt: skip
        logits = head(part).float()
        flat = wanted[:, start:end].flatten()
        loss = F.cross_entropy(
            logits.flatten(0, 1), flat, ignore_index=_NO_TARGET, label_smoothing=label_smoothing, reduction="none"
        )
        return loss.view(rows, -1), logits.detach().argmax(-1) == wanted[:, start:end]

    step = max(1, (most_logits or MOST_LOGITS) // (max(1, rows) * head.vocabulary_size))
    again = torch.is_grad_enabled() and step < seq
    parts = []
    for start in range(0, seq, step):
        hidden = encoded.hidden[:, start : start + step]
        made = checkpoint(stretch, hidden, start, use_reentrant=False) if again else stretch(hidden, start)
        parts.append(cast(tuple[Tensor, Tensor], made))
    return TokenLosses(torch.cat([loss for loss, _ in parts], 1), torch.cat([right for _, right in parts], 1))
