"""Best spans equal a brute-force search."""

from __future__ import annotations

import pytest
import torch

from cypher.tasks.span_decoding import best_spans


@pytest.mark.parametrize(("seq", "max_answer_tokens", "top_k"), [(9, 3, 4), (5, 30, 20), (1, 1, 3), (40, 30, 1)])
def test_equals_brute_force(seq: int, max_answer_tokens: int, top_k: int) -> None:
    torch.manual_seed(seq)
    logits = torch.randn(3, seq, 2)
    allowed = torch.rand(3, seq) < 0.8
    allowed[:, -1] = True
    best = best_spans(logits, allowed, top_k=top_k, max_answer_tokens=max_answer_tokens)
    for row in range(3):
        every = sorted(
            (
                (float(logits[row, start, 0] + logits[row, end, 1]), start, end)
                for start in range(seq)
                for end in range(start, min(seq, start + max_answer_tokens))
                if allowed[row, start] and allowed[row, end]
            ),
            reverse=True,
        )[:top_k]
        found = [
            (score, start, end)
            for score, start, end in zip(
                best.score[row].tolist(), best.start[row].tolist(), best.end[row].tolist(), strict=True
            )
            if score > float("-inf")
        ]
        assert [(start, end) for _, start, end in found] == [(start, end) for _, start, end in every]
        assert [score for score, _, _ in found] == pytest.approx([score for score, _, _ in every], abs=1e-5)
