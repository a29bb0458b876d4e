"""Invariants that every attention keeps, from one table; a new kind adds a row."""

from __future__ import annotations

import pytest
import torch

from cypher.errors import ConfigError
from cypher.layers.attention import BlockContext, ColumnMeans, FullAttention, key_mask
from cypher.layers.linear import Linear

KINDS = {"full": lambda: FullAttention(width=16, n_heads=4)}


@pytest.fixture(params=sorted(KINDS))
def attention(request: pytest.FixtureRequest) -> FullAttention:
    torch.manual_seed(0)
    module = KINDS[request.param]().eval()
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return module


def context(mask: torch.Tensor, *, scores: bool = False) -> BlockContext:
    return BlockContext(attention_mask=mask, mask=key_mask(mask), scores=scores)


def mask_of(lengths: list[int], seq: int) -> torch.Tensor:
    return torch.arange(seq) < torch.tensor(lengths).unsqueeze(1)


def test_padding_changes_nothing(attention: FullAttention) -> None:
    hidden = torch.randn(2, 7, 16)
    alone = attention(hidden, context(mask_of([7, 7], 7))).update
    padded = torch.cat([hidden, torch.randn(2, 5, 16) * 50], 1)
    together = attention(padded, context(mask_of([7, 7], 12))).update[:, :7]
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)


def test_batch_order_changes_nothing(attention: FullAttention) -> None:
    hidden, mask = torch.randn(4, 6, 16), mask_of([6, 2, 4, 5], 6)
    order = torch.tensor([2, 0, 3, 1])
    straight = attention(hidden, context(mask)).update[order]
    torch.testing.assert_close(attention(hidden[order], context(mask[order])).update, straight, atol=1e-5, rtol=0)


def test_fully_padded_row_is_finite(attention: FullAttention) -> None:
    mask = mask_of([3, 0], 3)
    for scores in (False, True):
        assert attention(torch.randn(2, 3, 16), context(mask, scores=scores)).update.isfinite().all()


@pytest.mark.parametrize("lengths", [[6, 6], [6, 3]])
def test_the_three_paths_agree(attention: FullAttention, lengths: list[int]) -> None:
    """The fused kernel, the path with scores and the path for training are one function."""
    hidden, mask = torch.randn(2, 6, 16), mask_of(lengths, 6)
    fused = attention(hidden, context(mask)).update
    with_scores = attention(hidden, context(mask, scores=True))
    training = attention.train()(hidden, context(mask)).update
    torch.testing.assert_close(with_scores.update, fused, atol=1e-5, rtol=0)
    torch.testing.assert_close(training, fused, atol=1e-5, rtol=0)
    assert with_scores.scores is not None
    torch.testing.assert_close(with_scores.scores.sum(1), torch.ones(2))
    assert (with_scores.scores[~mask] == 0).all()


def test_column_means_count_live_queries_only() -> None:
    probabilities = torch.tensor([[[[0.5, 0.5], [0.9, 0.1]]]])
    means = ColumnMeans()(probabilities, torch.tensor([[True, False]]))
    torch.testing.assert_close(means, torch.tensor([[0.5, 0.5]]))


def test_heads_must_divide_width() -> None:
    with pytest.raises(ConfigError, match="width 10 with 4 heads"):
        FullAttention(width=10, n_heads=4)


def test_linear_without_deltas_is_nn_linear() -> None:
    linear = Linear(3, 5)
    values = torch.randn(2, 3)
    torch.testing.assert_close(linear(values), torch.nn.functional.linear(values, linear.weight, linear.bias))
