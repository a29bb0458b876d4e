"""Compacter: bottlenecks whose weights are sums of Kronecker products (Karimi Mahabadi et al. 2021, arXiv 2106.04647).

``W = Σ_i A_i ⊗ (s_i t_i)``: the small ``A_i`` are one rule for all layers, ``s_i`` and ``t_i`` are of low rank.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cypher.adapters.bottleneck import BottleneckPlug, JoinAdapter
from cypher.adapters.places import plug_in
from cypher.config import CompacterConfig
from cypher.errors import ConfigError
from cypher.models.model import Model


class PhmLinear(nn.Module):
    """A linear layer whose weight is a sum of Kronecker products (Zhang et al. 2021, arXiv 2102.08597).

    Args:
        in_features: ``terms`` must divide it.
        out_features: Likewise.
        rank: Of the larger factors.
        rule: ``(terms, terms, terms)``, the smaller factors; a parameter that other layers may have as well.
    """

    def __init__(self, in_features: int, out_features: int, *, rank: int, rule: nn.Parameter) -> None:
        super().__init__()
        terms = rule.shape[0]
        self.rule = rule
        self.left = nn.Parameter(torch.empty(terms, in_features // terms, rank))
        self.right = nn.Parameter(torch.empty(terms, rank, out_features // terms))
        self.bias = nn.Parameter(torch.zeros(out_features))
        for term in (*self.left.data, *self.right.data):
            nn.init.xavier_normal_(term)

    def forward(self, values: Tensor) -> Tensor:
        """``(…, in_features) -> (…, out_features)``."""
        large = self.left @ self.right
        # Σ_i kron(rule_i, large_i): rows are (rule row, large row), columns likewise.
        weight = torch.einsum("tab,tcd->acbd", self.rule, large)
        weight = weight.reshape(self.rule.shape[1] * large.shape[1], self.rule.shape[2] * large.shape[2])
        return values @ weight.to(values.dtype) + self.bias.to(values.dtype)


def _new_rule(terms: int) -> nn.Parameter:
    return nn.Parameter(torch.randn(terms, terms, terms) * 1e-4)


class Compacter(JoinAdapter):
    """Bottlenecks of Kronecker products behind the chosen sub-layers of every block.

    Args:
        config: Places, reduction factor, terms and rank.
    """

    config: CompacterConfig

    def attach(self, model: Model, name: str) -> None:
        """Plug fresh ones in; their change is next to nothing.

        Raises:
            ConfigError: The name is taken or no name at all, the model has none of the places, or ``terms`` does not
                divide its width or the middle.
        """
        sites, middle = self.sites(model), self._middle(model)
        shared = _new_rule(self.config.terms) if self.config.shared_rule else None
        plug_in(model, name, [(site.plugs, self._plug(model.width, middle, shared)) for site in sites])

    def _plug(self, width: int, middle: int, shared: nn.Parameter | None) -> BottleneckPlug:
        down, up = (
            PhmLinear(into, out, rank=self.config.rank, rule=_new_rule(self.config.terms) if shared is None else shared)
            for into, out in ((width, middle), (middle, width))
        )
        return BottleneckPlug(width, down, up, self.config)

    def _middle(self, model: Model) -> int:
        middle, terms = self.middle(model), self.config.terms
        if model.width % terms or middle % terms:
            raise ConfigError(
                f"compacter of width {model.width} with a middle of {middle}",
                needed=f"two multiples of {terms} terms",
                change="set adapter.reduction_factor or adapter.terms",
            )
        return middle

    def num_params(self, model: Model) -> int:
        """Number of trained parameters on ``model``, by formula."""
        width, middle, rank = model.width, self._middle(model), self.config.rank
        n_plugs = len(self.sites(model))
        rules = 1 if self.config.shared_rule else 2 * n_plugs
        # A left and a right factor have (in + out) / terms columns a term, so terms cancel out.
        one = 2 * rank * (width + middle) + middle + width + self.num_params_beside(width)
        return n_plugs * one + rules * self.config.terms**3
