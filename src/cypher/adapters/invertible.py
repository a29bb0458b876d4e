"""Invertible adapters: a reversible change of the embedding (NICE: Dinh et al. 2014, arXiv 1410.8516, section 3.2; as
adapters of a language: Pfeiffer et al. 2020, arXiv 2005.00052, section 4.3).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cypher.adapters.activation import ADAPTER_ACTIVATIONS
from cypher.adapters.adapter import Adapter
from cypher.adapters.places import plug_in
from cypher.config import AdapterActivation, InvertibleConfig
from cypher.layers.linear import Linear
from cypher.layers.plugs import EmbeddingPlug
from cypher.models.model import Model


class Coupling(nn.Module):
    """``up(activation(down(half)))``, what one half of a vector adds to the other.

    Args:
        in_features: Of the half that is read.
        out_features: Of the half that is changed.
        config: Of the middle.
    """

    def __init__(self, in_features: int, out_features: int, config: InvertibleConfig) -> None:
        super().__init__()
        middle = _middle(in_features, config)
        self.activation: AdapterActivation = config.activation
        self.down, self.up = Linear(in_features, middle), Linear(middle, out_features)
        for linear in (self.down, self.up):
            nn.init.normal_(linear.weight, std=0.02)
            nn.init.zeros_(linear.bias)

    def forward(self, half: Tensor) -> Tensor:
        """``(…, in_features) -> (…, out_features)``."""
        added: Tensor = self.up(ADAPTER_ACTIVATIONS[self.activation](self.down(half)))
        return added


class InvertiblePlug(EmbeddingPlug):
    """``first + F(second)``, then ``second + G(first)``, over the two halves of every vector.

    Args:
        width: Of the hidden states.
        config: Of the couplings.
    """

    def __init__(self, width: int, config: InvertibleConfig) -> None:
        super().__init__()
        self.first_width = width // 2
        self.to_first = Coupling(width - self.first_width, self.first_width, config)
        self.to_second = Coupling(self.first_width, width - self.first_width, config)

    def forward(self, hidden: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Change every vector; ``mask`` stays."""
        first, second = hidden[..., : self.first_width], hidden[..., self.first_width :]
        first = first + self.to_first(second)
        second = second + self.to_second(first)
        return torch.cat([first, second], -1), mask

    def inverse(self, hidden: Tensor) -> Tensor:
        """Undo it, ``(…, width)`` in and out."""
        first, second = hidden[..., : self.first_width], hidden[..., self.first_width :]
        second = second - self.to_second(first)
        first = first - self.to_first(second)
        return torch.cat([first, second], -1)


class Invertible(Adapter):
    """A reversible change behind the embedding, undone before a language head that is tied to it.

    The sides of an encoder-decoder share it as they share their embedding.

    Args:
        config: Of the couplings.
    """

    def __init__(self, config: InvertibleConfig) -> None:
        self.config = config

    def attach(self, model: Model, name: str) -> None:
        """Plug a fresh one in.

        Raises:
            ConfigError: The name is taken or no name at all.
        """
        plug = InvertiblePlug(model.width, self.config)
        plug_in(model, name, [(site.plugs, plug) for site in model.embedding_sites])

    def num_params(self, model: Model) -> int:
        """Number of trained parameters on ``model``, by formula."""
        first = model.width // 2
        second = model.width - first
        into_first, into_second = _middle(second, self.config), _middle(first, self.config)
        return model.width * (into_first + into_second) + into_first + into_second + model.width


def _middle(in_features: int, config: InvertibleConfig) -> int:
    return max(1, int(in_features // config.reduction_factor))
