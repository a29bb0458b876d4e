"""Bottleneck adapters: sequential (Houlsby et al. 2019, arXiv 1902.00751; Pfeiffer et al. 2020, arXiv 2005.00247) and
parallel (He et al. 2021, arXiv 2110.04366).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cypher.adapters.activation import ADAPTER_ACTIVATIONS
from cypher.adapters.adapter import Adapter
from cypher.adapters.gate import Gate, refuse_gates_of_decoders
from cypher.adapters.places import blocks_of, plug_in
from cypher.config import AdapterActivation, BottleneckConfig, CompacterConfig
from cypher.errors import ConfigError
from cypher.layers.linear import Linear
from cypher.layers.plugs import Change, FusiblePlug, JoinPlug
from cypher.layers.sites import JoinSite
from cypher.models.model import Model

JoinAdapterConfig = BottleneckConfig | CompacterConfig


class OwnNorm(nn.LayerNorm):
    """A layer norm that stays fp32 where it is trained and runs in the dtype of its input."""

    def forward(self, values: Tensor) -> Tensor:
        """``(…, width)`` in and out."""
        weight, bias = self.weight.to(values.dtype), self.bias.to(values.dtype)
        return F.layer_norm(values, self.normalized_shape, weight, bias, self.eps)


class _Stacked(NamedTuple):
    """Both products of several plugs: weights ``(plugs, in_features, out_features)``, biases ``(plugs, 1, …)``."""

    down: Tensor
    down_bias: Tensor
    up: Tensor
    up_bias: Tensor


class BottleneckPlug(FusiblePlug):
    """``scale · up(activation(down(given)))`` behind a sub-layer, added to what the configuration says.

    Args:
        width: Of the hidden states.
        down: ``(…, width) -> (…, middle)``.
        up: ``(…, middle) -> (…, width)``.
        config: What is read, what the change is added to, norms, scale, gate.
    """

    def __init__(self, width: int, down: nn.Module, up: nn.Module, config: JoinAdapterConfig) -> None:
        super().__init__()
        self.reads, self.residual, self.norm_with_residual = config.reads, config.residual, config.norm_with_residual
        self.activation: AdapterActivation = config.activation
        self.norm_before = OwnNorm(width) if config.norm_before else None
        self.down, self.up = down, up
        self.scale: float | nn.Parameter
        if isinstance(config.scale, str):
            self.scale = nn.Parameter(torch.ones(width if config.scale == "channel" else 1))
        else:
            self.scale = config.scale
        self.dropout = nn.Dropout(config.dropout)
        self.gate = Gate(width) if config.gated else None
        self.norm_after = OwnNorm(width) if config.norm_after else None
        self._stacked: tuple[tuple[BottleneckPlug, ...], _Stacked] | None = None

    def change(self, update: Tensor, residual: Tensor, source: Tensor, norm: nn.Module) -> Change:
        """What was read and the change; its own last norm is in it unless that is taken with the residual."""
        given = self._given(update, residual, norm)
        inner = self.down(given if self.norm_before is None else self.norm_before(given))
        change = self.up(ADAPTER_ACTIVATIONS[self.activation](inner))
        if isinstance(self.scale, nn.Parameter):
            change = change * self.scale.to(change.dtype)
        elif self.scale != 1:
            change = change * self.scale
        change = self.dropout(change)
        if self.gate is not None:
            change = change * self.gate(given)
        if self.norm_after is not None and not self.norm_with_residual:
            change = self.norm_after(change)
        return Change(given, change, update if self.residual == "update" else given)

    def _given(self, update: Tensor, residual: Tensor, norm: nn.Module) -> Tensor:
        if self.reads == "normed":
            return cast(Tensor, norm(update + residual))
        return update if self.reads == "update" else residual

    def together(
        self, others: Sequence[JoinPlug], update: Tensor, residual: Tensor, source: Tensor, norm: nn.Module
    ) -> Tensor | None:
        """Two batched products for all, where each by itself is a pair of small ones with calls around them."""
        plugs = (self, *(plug for plug in others if isinstance(plug, BottleneckPlug)))
        if len(plugs) <= len(others) or self._alike() is None or len({plug._alike() for plug in plugs}) > 1:
            return None
        stacked = self._stack(plugs, update.dtype)
        if stacked is None:
            return None
        given = self._given(update, residual, norm)
        rows = given.reshape(len(plugs), -1, given.shape[-1])
        inner = ADAPTER_ACTIVATIONS[self.activation](torch.baddbmm(stacked.down_bias, rows, stacked.down))
        change: Tensor = self.dropout(torch.baddbmm(stacked.up_bias, inner, stacked.up).view_as(given) * self.scale)
        return (update if self.residual == "update" else given) + change

    def _alike(self) -> tuple[object, ...] | None:
        """What plugs must have in common to go together; ``None`` if this one never does."""
        if isinstance(self.scale, nn.Parameter) or any((self.gate, self.norm_before, self.norm_after)):
            return None
        if not (isinstance(self.down, Linear) and isinstance(self.up, Linear)):
            return None
        return self.reads, self.residual, self.activation, self.scale, self.dropout.p, self.down.out_features

    def _stack(self, plugs: tuple[BottleneckPlug, ...], dtype: torch.dtype) -> _Stacked | None:
        """All weights below each other: once where they are packed, as then they stay what they are."""
        if self._stacked is not None and self._stacked[0] == plugs and self._stacked[1].down.dtype == dtype:
            return self._stacked[1]
        down, up = ([cast(Linear, getattr(plug, side)) for plug in plugs] for side in ("down", "up"))
        plain = [[linear.plain() for linear in side] for side in (down, up)]
        if any(each is None or each[1] is None for side in plain for each in side):
            return None
        parts = []
        for side in cast("list[list[tuple[Tensor, Tensor]]]", plain):
            parts.append(torch.stack([weight for weight, _ in side]).transpose(1, 2).to(dtype))
            parts.append(torch.stack([bias for _, bias in side]).unsqueeze(1).to(dtype))
        stacked = _Stacked(*parts)
        if all(linear.packed is not None for linear in (*down, *up)):
            stacked = _Stacked(*(part.contiguous() for part in parts))
            self._stacked = (plugs, stacked)
        return stacked

    def forward(self, update: Tensor, residual: Tensor, source: Tensor, norm: nn.Module) -> Tensor:
        """The changed update; arguments as in :meth:`JoinPlug.forward`."""
        _, change, onto = self.change(update, residual, source, norm)
        changed = onto + change
        if self.norm_after is not None and self.norm_with_residual:
            changed = self.norm_after(changed)
        return changed


class JoinAdapter(Adapter):
    """What the methods behind sub-layers share.

    Args:
        config: Places and the shape of each plug.
    """

    def __init__(self, config: JoinAdapterConfig) -> None:
        self.config = config

    def sites(self, model: Model) -> list[JoinSite]:
        """Where ``model`` gets a plug.

        Raises:
            ConfigError: It has none of the places, or a gate would look ahead.
        """
        places = [
            (segment, site)
            for segment, _, block in blocks_of(model, leave_out=self.config.leave_out)
            for place in self.config.places
            if isinstance(site := getattr(block, f"{place}_join"), JoinSite)
        ]
        if not places:
            raise ConfigError(f"adapter.places = {list(self.config.places)}", needed="a sub-layer of this model")
        if self.config.gated:
            refuse_gates_of_decoders(model, [segment for segment, _ in places])
        return [site for _, site in places]

    def middle(self, model: Model) -> int:
        """Width of the middle."""
        return max(1, int(model.width // self.config.reduction_factor))

    def num_params_beside(self, width: int) -> int:
        """Parameters of one plug that are not of its two projections."""
        norms = 2 * width * (self.config.norm_before + self.config.norm_after)
        scale = {"learned": 1, "channel": width}.get(str(self.config.scale), 0)
        return norms + scale + (Gate.num_params(width) if self.config.gated else 0)


class Bottleneck(JoinAdapter):
    """A narrow feed-forward behind the chosen sub-layers of every block.

    Args:
        config: Places, reduction factor and the residual form.

    Example:
        >>> from cypher.config import adapter_config
        >>> from cypher.models.bert import Bert, BertConfig
        >>> model = Bert(BertConfig(vocabulary_size=9, width=32, n_layers=1, n_heads=2, inner_width=16))
        >>> Bottleneck(adapter_config({"preset": "seq_bn"})).num_params(model)
        162
    """

    config: BottleneckConfig

    def attach(self, model: Model, name: str) -> None:
        """Plug fresh bottlenecks in; with ``init`` ``mam_adapter`` the model's function does not change.

        Raises:
            ConfigError: The name is taken or no name at all, or the model has none of the places.
        """
        sites = self.sites(model)
        plug_in(model, name, [(site.plugs, self._plug(model.width, self.middle(model))) for site in sites])

    def _plug(self, width: int, middle: int) -> BottleneckPlug:
        down, up = Linear(width, middle), Linear(middle, width)
        for linear in (down, up):
            nn.init.zeros_(linear.bias)
            if self.config.init == "houlsby":
                nn.init.trunc_normal_(linear.weight, std=1e-2, a=-2e-2, b=2e-2)
            else:
                nn.init.normal_(linear.weight, std=0.02)
        if self.config.init == "mam_adapter":
            nn.init.kaiming_uniform_(down.weight, a=math.sqrt(5))
            nn.init.zeros_(up.weight)
        return BottleneckPlug(width, down, up, self.config)

    def num_params(self, model: Model) -> int:
        """Number of trained parameters on ``model``, by formula."""
        width, middle = model.width, self.middle(model)
        return len(self.sites(model)) * (2 * width * middle + middle + width + self.num_params_beside(width))
