"""Prefix tuning: trained keys and values in front of an attention's own (Li and Liang 2021, arXiv 2101.00190)."""

from __future__ import annotations

from abc import abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor, nn

from cypher.adapters.activation import ADAPTER_ACTIVATIONS
from cypher.adapters.adapter import Adapter
from cypher.adapters.gate import Gate, refuse_gates_of_decoders
from cypher.adapters.places import blocks_of, plug_in
from cypher.config import AdapterActivation, PrefixConfig
from cypher.errors import ConfigError
from cypher.layers.attention import FullAttention
from cypher.layers.linear import Linear
from cypher.layers.plugs import KeyValuePlug
from cypher.models.model import Model


class PrefixPlug(KeyValuePlug):
    """Puts the same rows in front of the keys and values of every input row; every query may attend to them.

    Args:
        width: Of the hidden states.
        config: Dropout and gate.
    """

    def __init__(self, width: int, config: PrefixConfig) -> None:
        super().__init__()
        self.dropout = nn.Dropout(config.dropout)
        self.gate = Gate(width) if config.gated else None

    @abstractmethod
    def rows(self) -> tuple[Tensor, Tensor]:
        """Keys and values, ``(length, key_value_heads · head_width)`` each."""

    def forward(
        self, key: Tensor, value: Tensor, mask: Tensor | None, source: Tensor
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Shapes as in :meth:`KeyValuePlug.forward`."""
        key_rows, value_rows = (self.dropout(self._in_heads(rows.to(key.dtype), key)) for rows in self.rows())
        if self.gate is not None:
            gate = self.gate(source).unsqueeze(1)
            key_rows, value_rows = key_rows * gate, value_rows * gate
        if mask is not None:
            mask = torch.cat([mask.new_ones(*mask.shape[:-1], key_rows.shape[2]), mask], -1)
        return torch.cat([key_rows, key], 2), torch.cat([value_rows, value], 2), mask

    def _in_heads(self, rows: Tensor, key: Tensor) -> Tensor:
        """``(length, all heads · head_width) -> (batch, heads, length, head_width)``, of the heads that ``key`` has."""
        all_heads = rows.view(1, len(rows), -1, key.shape[-1])
        return all_heads[:, :, self.heads].transpose(1, 2).expand(len(key), -1, -1, -1)


class FlatPrefix(PrefixPlug):
    """Keys and values that are trained themselves.

    Args:
        key: ``(length, key_value_heads · head_width)``, what they start at.
        value: Likewise.
        width: Of the hidden states.
        config: Dropout and gate.
    """

    def __init__(self, key: Tensor, value: Tensor, width: int, config: PrefixConfig) -> None:
        super().__init__(width, config)
        self.key, self.value = nn.Parameter(key), nn.Parameter(value)

    def rows(self) -> tuple[Tensor, Tensor]:
        """Keys and values, ``(length, key_value_heads · head_width)`` each."""
        return self.key, self.value


class PrefixTrunk(nn.Module):
    """What the attentions of one kind share: a vector a row and the first layer of the network behind it.

    Args:
        width: Of the vectors.
        config: Length, bottleneck and activation.
    """

    def __init__(self, width: int, config: PrefixConfig) -> None:
        super().__init__()
        self.vectors = nn.Parameter(torch.randn(config.length, width))
        self.down = Linear(width, config.bottleneck)
        self.activation: AdapterActivation = config.activation

    def forward(self) -> Tensor:
        """``(length, bottleneck)``."""
        return ADAPTER_ACTIVATIONS[self.activation](self.down(self.vectors))


class ReparametrisedPrefix(PrefixPlug):
    """Keys and values that a small network makes, which is easier to train (section 4.3).

    Args:
        trunk: Shared with other blocks.
        narrow: ``key_value_heads · head_width``.
        width: Of the hidden states.
        config: Dropout and gate.
    """

    def __init__(self, trunk: PrefixTrunk, narrow: int, width: int, config: PrefixConfig) -> None:
        super().__init__(width, config)
        self.trunk = trunk
        self.up = Linear(config.bottleneck, 2 * narrow)

    def rows(self) -> tuple[Tensor, Tensor]:
        """Keys and values, ``(length, key_value_heads · head_width)`` each."""
        key, value = self.up(self.trunk()).chunk(2, dim=-1)
        return key, value


class AttentionPlace(NamedTuple):
    """An attention, and the kind it is of: its segment and its name in the block."""

    kind: tuple[str, str]
    attention: FullAttention


class Prefix(Adapter):
    """Rows in front of the keys and values of the chosen attentions of every block.

    Args:
        config: Length, which attentions, and whether a network makes the rows.
    """

    def __init__(self, config: PrefixConfig) -> None:
        self.config = config

    def attach(self, model: Model, name: str) -> None:
        """Plug fresh rows in; they change the model's function at once.

        Raises:
            ConfigError: The name is taken or no name at all, the model has no such attention, or a gate would look
                ahead.
        """
        places = self._places(model)
        if self.config.gated:
            refuse_gates_of_decoders(model, [place.kind[0] for place in places])
        trunks = {place.kind: PrefixTrunk(model.width, self.config) for place in places if not self.config.flat}
        plugs: list[tuple[nn.ModuleDict, nn.Module]] = []
        for kind, attention in places:
            plug: PrefixPlug
            if self.config.flat:
                key, value = torch.randn(2, self.config.length, _narrow(attention))
                plug = FlatPrefix(key, value, model.width, self.config)
            else:
                plug = ReparametrisedPrefix(trunks[kind], _narrow(attention), model.width, self.config)
            plugs.append((attention.key_value.plugs, plug))
        plug_in(model, name, plugs)

    def num_params(self, model: Model) -> int:
        """Number of trained parameters on ``model``, by formula."""
        places = self._places(model)
        length, inner = self.config.length, self.config.bottleneck
        gates = len(places) * Gate.num_params(model.width) if self.config.gated else 0
        narrow = sum(_narrow(place.attention) for place in places)
        if self.config.flat:
            return gates + 2 * length * narrow
        trunks = len({place.kind for place in places}) * (length * model.width + model.width * inner + inner)
        return gates + trunks + 2 * narrow * (inner + 1)

    def _places(self, model: Model) -> list[AttentionPlace]:
        places = [
            AttentionPlace((segment, place), attention)
            for segment, _, block in blocks_of(model, leave_out=self.config.leave_out)
            for place in self.config.places
            if isinstance(attention := getattr(block, place), FullAttention)
        ]
        if not places:
            raise ConfigError(f"adapter.places = {list(self.config.places)}", needed="an attention of this model")
        return places


@torch.no_grad()
def flatten_prefix(model: Model, name: str, config: PrefixConfig) -> PrefixConfig:
    """Replace the network of the prefix called ``name`` by the keys and values it makes: the same function, faster.

    Returns:
        The configuration that the prefix has now.
    """
    flat = config.model_copy(update={"flat": True})
    for module in list(model.modules()):
        if not isinstance(module, FullAttention) or name not in module.key_value.plugs:
            continue
        plug = module.key_value.plugs[name]
        if isinstance(plug, ReparametrisedPrefix):
            key, value = (rows.clone() for rows in plug.rows())
            replaced = FlatPrefix(key, value, plug.trunk.vectors.shape[1], flat).train(plug.training)
            replaced.gate = plug.gate
            module.key_value.plugs[name] = replaced
    return flat


def _narrow(attention: FullAttention) -> int:
    return attention.n_key_value_heads * attention.head_width
