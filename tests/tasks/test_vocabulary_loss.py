"""Losses in stretches equal the whole, and torch's own."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cypher.models.model import Encoded, LanguageHead
from cypher.tasks.vocabulary_loss import vocabulary_losses

VOCABULARY = 23


class Projection(LanguageHead):
    def __init__(self) -> None:
        super().__init__(VOCABULARY)
        self.linear = nn.Linear(8, VOCABULARY)
        self.most = 0

    def forward(self, encoded: Encoded) -> Tensor:
        logits: Tensor = self.linear(encoded.scatter())
        self.most = max(self.most, logits.numel())
        return logits


def encoded(hidden: Tensor, mask: Tensor) -> Encoded:
    rows, seq = mask.shape
    return Encoded(
        hidden=hidden, mask=mask, positions=torch.arange(seq).expand(rows, -1), row_of=torch.arange(rows), seq=seq
    )


@pytest.mark.parametrize("label_smoothing", [0.0, 0.2])
@pytest.mark.parametrize("most_logits", [1, 3 * VOCABULARY * 4, 10**6])
def test_stretches_equal_the_whole_with_their_gradients(label_smoothing: float, most_logits: int) -> None:
    head, mask = Projection(), torch.rand(3, 11) > 0.3
    targets = torch.randint(0, VOCABULARY, (3, 11))
    found, expected = [], []
    hidden = torch.randn(3, 11, 8, requires_grad=True)
    losses = vocabulary_losses(
        head, encoded(hidden, mask), targets, label_smoothing=label_smoothing, most_logits=most_logits
    )  # fmt: skip
    found = torch.autograd.grad(losses.loss.sum(), [hidden, *head.parameters()])
    assert head.most <= max(most_logits, 3 * VOCABULARY)
    logits = head.linear(hidden)
    whole = F.cross_entropy(logits[mask], targets[mask], label_smoothing=label_smoothing, reduction="sum")
    expected = torch.autograd.grad(whole, [hidden, *head.parameters()])
    torch.testing.assert_close(losses.loss.sum(), whole)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)
    assert not losses.loss[~mask].any()
    assert torch.equal(losses.correct[mask], logits.argmax(-1)[mask] == targets[mask])
    assert not losses.correct[~mask].any()


def test_chosen_tokens_keep_their_rows_and_order() -> None:
    hidden = torch.randn(2, 5, 8)
    chosen = torch.tensor([[0, 1, 0, 1, 1], [1, 0, 0, 0, 0]], dtype=torch.bool)
    picked = encoded(hidden, torch.ones(2, 5, dtype=torch.bool)).at(chosen)
    assert picked.mask.tolist() == [[True] * 3, [True, False, False]]
    assert picked.positions[0].tolist() == [1, 3, 4]
    torch.testing.assert_close(picked.scatter()[picked.mask], hidden[chosen])
