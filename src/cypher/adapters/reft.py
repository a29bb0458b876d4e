"""ReFT: low-rank changes of the representations behind a block (Wu et al. 2024, arXiv 2404.03592, section 3.2).

``LoReFT``: ``h + Rᵀ(W h + b − R h)`` with orthonormal rows in ``R``; ``NoReFT`` without that; ``DiReFT``:
``h + Rᵀ(W h + b)``.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cypher.adapters.activation import ADAPTER_ACTIVATIONS
from cypher.adapters.adapter import Adapter
from cypher.adapters.places import blocks_of, plug_in
from cypher.config import AdapterActivation, ReftConfig
from cypher.errors import ConfigError
from cypher.layers.linear import Linear
from cypher.layers.plugs import OutputPlug
from cypher.models.model import Model


class Intervention(nn.Module):
    """The change of one hidden state.

    Args:
        width: Of the hidden states.
        config: Rank and form.
    """

    def __init__(self, width: int, config: ReftConfig) -> None:
        super().__init__()
        self.orthogonal, self.subtract_projection = config.orthogonal, config.subtract_projection
        self.activation: AdapterActivation = config.activation
        self.source = Linear(width, config.rank)
        self.projection = nn.Parameter(torch.empty(config.rank, width))
        if config.orthogonal:
            nn.init.orthogonal_(self.projection)
        else:
            nn.init.kaiming_uniform_(self.projection, a=math.sqrt(5))
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, hidden: Tensor) -> Tensor:
        """``(…, width)`` in and out."""
        projection = self.rows().to(hidden.dtype)
        aimed = ADAPTER_ACTIVATIONS[self.activation](self.source(hidden))
        if self.subtract_projection:
            aimed = aimed - F.linear(hidden, projection)
        changed: Tensor = self.dropout(hidden + aimed @ projection)
        return changed

    def rows(self) -> Tensor:
        """The projection, ``(rank, width)``; orthonormal rows are those of the parameter, made so by Gram-Schmidt."""
        if not self.orthogonal:
            return self.projection
        columns, triangle = torch.linalg.qr(self.projection.float().t())
        # Signs of the triangle's diagonal make the factors unique: orthonormal rows stay as they are.
        signed: Tensor = torch.where(triangle.diagonal() < 0, -columns, columns)
        return signed.t()


class ReftPlug(OutputPlug):
    """Changes the first and the last real tokens of every row.

    Args:
        width: Of the hidden states.
        config: Positions, rank and form.
    """

    def __init__(self, width: int, config: ReftConfig) -> None:
        super().__init__()
        self.prefix_positions, self.suffix_positions = config.prefix_positions, config.suffix_positions
        self.prefix = Intervention(width, config) if config.prefix_positions else None
        self.suffix: Intervention | None = None
        if config.suffix_positions:
            self.suffix = self.prefix if config.tied and self.prefix is not None else Intervention(width, config)

    def forward(self, hidden: Tensor, attention_mask: Tensor) -> Tensor:
        """Shapes as in :meth:`OutputPlug.forward`."""
        counted = attention_mask.cumsum(1)
        number, live = counted[:, -hidden.shape[1] :], attention_mask[:, -hidden.shape[1] :]
        changed = hidden
        if self.prefix is not None:
            first = live & (number <= self.prefix_positions)
            changed = torch.where(first.unsqueeze(-1), self.prefix(hidden), changed)
        if self.suffix is not None:
            last = live & (number > counted[:, -1:] - self.suffix_positions)
            changed = torch.where(last.unsqueeze(-1), self.suffix(hidden), changed)
        return changed


class Reft(Adapter):
    """Changed representations behind every block.

    Args:
        config: Positions, rank and form.
    """

    def __init__(self, config: ReftConfig) -> None:
        self.config = config

    def attach(self, model: Model, name: str) -> None:
        """Plug fresh interventions in; they change the model's function at once.

        Raises:
            ConfigError: The name is taken or no name at all, the rank is larger than the width, or the last tokens of
                a text that is still being written are meant.
        """
        places = blocks_of(model, leave_out=self.config.leave_out)
        if self.config.rank > model.width:
            raise ConfigError(f"adapter.rank = {self.config.rank}", needed=f"at most the width, {model.width}")
        if self.config.suffix_positions and (decoders := {segment for segment, _, _ in places} & set(model.remembers)):
            raise ConfigError(
                f"adapter.suffix_positions = {self.config.suffix_positions} in a {min(decoders)}: the last tokens are "
                "others with every token that is written",
                change="use prefix_positions, or leave its blocks out",
            )
        plug_in(model, name, [(block.output.plugs, ReftPlug(model.width, self.config)) for _, _, block in places])

    def num_params(self, model: Model) -> int:
        """Number of trained parameters on ``model``, by formula."""
        config = self.config
        both = bool(config.prefix_positions and config.suffix_positions)
        one = config.rank * (2 * model.width + 1)
        return len(blocks_of(model, leave_out=config.leave_out)) * one * (2 if both and not config.tied else 1)
