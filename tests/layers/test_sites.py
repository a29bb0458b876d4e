"""Sites: empty they are the plain transformer; plugged they follow the published residual forms."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from cypher.layers.plugs import Change, EmbeddingPlug, FusiblePlug, KeyValuePlug, OutputPlug
from cypher.layers.sites import EmbeddingSite, JoinSite, KeyValueSite, OutputSite


class Bottleneck(FusiblePlug):
    """The Pfeiffer form: ``up(norm(update + residual)) + update``."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.up = nn.Linear(width, width)

    def change(self, update: Tensor, residual: Tensor, source: Tensor, norm: nn.Module) -> Change:
        given = norm(update + residual)
        return Change(given, self.up(given), update)


class Prefix(KeyValuePlug):
    def forward(
        self, key: Tensor, value: Tensor, mask: Tensor | None, source: Tensor
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        return torch.cat([key[:, :, :1] * 0, key], 2), torch.cat([value[:, :, :1] * 0, value], 2), mask


class Double(EmbeddingPlug):
    def forward(self, hidden: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        return hidden * 2, mask

    def inverse(self, hidden: Tensor) -> Tensor:
        return hidden / 2


class Front(EmbeddingPlug):
    """One row in front."""

    at_beginning_only = True

    def forward(self, hidden: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        return torch.cat([hidden[:, :1] + 1, hidden], 1), torch.cat([mask[:, :1] | True, mask], 1)


class Forget(OutputPlug):
    """Sets the first token of a row to zero, wherever padding stands."""

    def forward(self, hidden: Tensor, attention_mask: Tensor) -> Tensor:
        first = (attention_mask.cumsum(1) == 1) & attention_mask
        return hidden * ~first[:, -hidden.shape[1] :].unsqueeze(-1)


@pytest.mark.parametrize("style", ["post", "pre"])
def test_empty_join(style: str) -> None:
    norm = nn.LayerNorm(8)
    site = JoinSite(norm, style=style)
    update, residual = torch.randn(2, 3, 8), torch.randn(2, 3, 8)
    entered = site.enter(residual)
    if style == "post":
        assert entered is residual
        torch.testing.assert_close(site(update, residual, entered), norm(residual + update))
    else:
        torch.testing.assert_close(entered, norm(residual))
        torch.testing.assert_close(site(update, residual, entered), residual + update)


def test_plugs_stack_in_order() -> None:
    """Two bottlenecks give ``norm(up_b(norm(s + r)) + s + r)`` with ``s = up_a(norm(h + r)) + h``."""
    site = JoinSite(nn.LayerNorm(8))
    site.plugs["a"], site.plugs["b"] = Bottleneck(8), Bottleneck(8)
    h, r = torch.randn(2, 3, 8), torch.randn(2, 3, 8)
    s = site.plugs["a"].up(site.norm(h + r)) + h
    expected = site.norm(site.plugs["b"].up(site.norm(s + r)) + s + r)
    torch.testing.assert_close(site(h, r, r), expected)


def test_key_value_site() -> None:
    key = torch.randn(1, 2, 3, 4)
    site = KeyValueSite()
    hidden = torch.randn(1, 3, 8)
    assert site(key, key, None, hidden)[0] is key
    site.plugs["prefix"] = Prefix()
    assert site(key, key, None, hidden)[0].shape == (1, 2, 4, 4)


def test_embedding_site() -> None:
    hidden, mask = torch.randn(2, 3, 8), torch.tensor([[True, True, False], [True, False, False]])
    site = EmbeddingSite()
    assert site(hidden, mask)[0] is hidden
    site.plugs["front"], site.plugs["twice"] = Front(), Double()
    changed, longer = site(hidden, mask)
    torch.testing.assert_close(changed, torch.cat([hidden[:, :1] + 1, hidden], 1) * 2)
    assert longer.sum(1).tolist() == [3, 2]
    torch.testing.assert_close(site(hidden, mask, beginning=False)[0], hidden * 2)
    torch.testing.assert_close(site.inverse(hidden * 2), hidden)


def test_before_a_pre_norm_join_nothing_norms_the_sum() -> None:
    site = JoinSite(nn.LayerNorm(8), style="pre")
    site.plugs["a"] = Bottleneck(8)
    update, residual = torch.randn(2, 3, 8), torch.randn(2, 3, 8)
    expected = site.plugs["a"].up(update + residual) + update + residual
    torch.testing.assert_close(site(update, residual, residual), expected)


def test_output_site() -> None:
    hidden, mask = torch.ones(2, 3, 8), torch.tensor([[True, True, True], [False, True, True]])
    site = OutputSite()
    assert site(hidden, mask) is hidden
    site.plugs["forget"] = Forget()
    assert site(hidden, mask)[..., 0].tolist() == [[0, 1, 1], [1, 0, 1]]
    assert site(hidden[:, 2:], mask)[..., 0].tolist() == [[1], [1]]  # later steps know that they are later
