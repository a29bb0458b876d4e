"""From start and end logits to the best spans."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class BestSpans(NamedTuple):
    """The best spans of each window, all ``(batch, top_k)``, best first.

    Attributes:
        start: First token, int64.
        end: Last token, int64.
        score: Sum of the two logits, fp32; minus infinity where a window has fewer spans.
    """

    start: Tensor
    end: Tensor
    score: Tensor


def best_spans(logits: Tensor, allowed: Tensor, *, top_k: int, max_answer_tokens: int) -> BestSpans:
    """Find the best spans ``start <= end < start + max_answer_tokens`` inside each window.

    Args:
        logits: ``(batch, seq, 2)``, start and end.
        allowed: ``(batch, seq)`` bool, tokens an answer may consist of.
        top_k: Spans a window.
        max_answer_tokens: Longest span.
    """
    seq = logits.shape[1]
    width = min(max_answer_tokens, seq)
    start, end = logits.float().masked_fill(~allowed.unsqueeze(-1), float("-inf")).unbind(-1)
    # ends[b, i, d] is the end logit of the span that starts at i and has d + 1 tokens.
    ends = torch.nn.functional.pad(end, (0, width - 1), value=float("-inf")).unfold(1, width, 1)
    scores = (start.unsqueeze(-1) + ends).flatten(1)
    best = scores.topk(min(top_k, scores.shape[1]), dim=1)
    first = best.indices // width
    return BestSpans(start=first, end=first + best.indices % width, score=best.values)
