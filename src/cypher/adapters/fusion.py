"""AdapterFusion: attention over what several adapters add (Pfeiffer et al. 2021, arXiv 2005.00247, section 3.2)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cypher.adapters.composition import Fuse
from cypher.config import FusionConfig
from cypher.errors import ConfigError
from cypher.layers.penalty import Penalised
from cypher.layers.plugs import FusiblePlug
from cypher.layers.sites import JoinSite
from cypher.models.model import Model


class Fusion(nn.Module, Penalised):
    """``Σ softmax_n(query(given) · key(change_n)) · value(change_n)``, for every token by itself.

    The softmax has no temperature: one that falls from call to call, as in the first release, makes the same input
    give another output every time it is seen, in evaluation too.

    Args:
        width: Of the hidden states.
        config: Which projections there are, and how strongly ``value`` is held at the identity.
    """

    def __init__(self, width: int, config: FusionConfig) -> None:
        super().__init__()
        self.config = config
        self.query = nn.Linear(width, width) if config.query else None
        self.key = nn.Linear(width, width) if config.key else None
        self.value = nn.Linear(width, width, bias=False) if config.value else None
        self.dropout = nn.Dropout(config.dropout)
        for projection in (self.query, self.key):
            if projection is not None:
                nn.init.normal_(projection.weight, std=0.02)
                nn.init.zeros_(projection.bias)
        if self.value is not None:
            # Close to the identity, so that a fusion begins as a mean of what the adapters add.
            with torch.no_grad():
                self.value.weight.fill_(1e-6).fill_diagonal_(1.0)

    def forward(self, given: Tensor, changes: Tensor) -> Tensor:
        """Mix the changes.

        Args:
            given: ``(batch, seq, width)``, what the last adapter read.
            changes: ``(batch, seq, adapters, width)``.

        Returns:
            ``(batch, seq, width)``.
        """
        query = _project(self.query, given)
        scores = torch.einsum("bsw,bsnw->bsn", query, _project(self.key, changes))
        weights = self.dropout(scores).softmax(-1)
        # The projection is linear: once behind the sum instead of once an adapter before it.
        return _project(self.value, torch.einsum("bsn,bsnw->bsw", weights, changes))

    def penalty(self) -> Tensor | None:
        """``regularisation · Σ (I − value)²``, which keeps what an adapter adds what it was (section 3.2)."""
        if self.value is None:
            return None
        weight = self.value.weight
        difference = torch.eye(len(weight), dtype=weight.dtype, device=weight.device) - weight
        return self.config.regularisation * difference.square().sum()


def _project(projection: nn.Linear | None, values: Tensor) -> Tensor:
    if projection is None:
        return values
    bias = None if projection.bias is None else projection.bias.to(values.dtype)
    return F.linear(values, projection.weight.to(values.dtype), bias)


def add_fusion(model: Model, fuse: Fuse, config: FusionConfig | None = None) -> None:
    """Make the weights of a fusion, at every join that has one of its adapters.

    Args:
        model: The adapters are attached.
        fuse: Whose.
        config: Its options.

    Raises:
        ConfigError: There is one already, or an adapter is not attached or adds nothing at a join alone.
    """
    config = config or FusionConfig()
    sites = [site for site in model.modules() if isinstance(site, JoinSite)]
    if any(fuse.name in site.fusions for site in sites):
        raise ConfigError(f"a fusion of {fuse.name} exists already", change="remove it first (remove_fusion)")
    check_fusible(model, fuse)
    for site in sites:
        if not set(fuse.names()).isdisjoint(site.plugs):
            site.fusions[fuse.name] = Fusion(model.width, config)


def remove_fusion(model: Model, fuse: Fuse) -> None:
    """Drop the weights of a fusion; the adapters stay."""
    for site in model.modules():
        if isinstance(site, JoinSite) and fuse.name in site.fusions:
            del site.fusions[fuse.name]


def fusion_parameters(model: Model, fuse: Fuse) -> dict[str, nn.Parameter]:
    """The weights of a fusion, by their path in the model."""
    marker = f".fusions.{fuse.name}."
    return {path: parameter for path, parameter in model.named_parameters() if marker in path}


def freeze_all_but_fusion(model: Model, fuse: Fuse) -> None:
    """Leave only a fusion to be trained: the second stage, after every adapter was trained by itself."""
    own = fusion_parameters(model, fuse)
    for path, parameter in model.named_parameters():
        parameter.requires_grad_(path in own)


def check_fusible(model: Model, fuse: Fuse) -> None:
    """Refuse adapters that cannot be fused.

    Raises:
        ConfigError: One has parts elsewhere than at joins, or is not attached.
    """
    for name in fuse.names():
        parts = [module[name] for module in model.modules() if isinstance(module, nn.ModuleDict) and name in module]
        if not parts:
            raise ConfigError(f"adapter {name!r} in {fuse!r} is not attached")
        if not all(isinstance(part, FusiblePlug) for part in parts):
            raise ConfigError(
                f"adapter {name!r} in {fuse!r}",
                needed="a bottleneck or compacter adapter: a fusion weighs what is added where a sub-layer ends",
            )
