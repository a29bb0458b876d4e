"""Several methods as one adapter: mix-and-match (He et al. 2021, arXiv 2110.04366), UniPELT (Mao et al. 2022, arXiv
2110.07577), a language adapter with its invertible part.
"""

from __future__ import annotations

from collections.abc import Sequence

from cypher.adapters.adapter import Adapter
from cypher.errors import ConfigError
from cypher.models.model import Model


class Union(Adapter):
    """Methods attached under one name; they sit in different places, so one name is enough.

    Args:
        parts: The methods, in the order they are attached.
    """

    def __init__(self, parts: Sequence[Adapter]) -> None:
        self.parts = tuple(parts)

    def attach(self, model: Model, name: str) -> None:
        """Plug all parts in, or none.

        Raises:
            ConfigError: A part cannot be attached, or two of them want the same place.
        """
        if self.parameters_of(model, name):
            raise ConfigError(f"an adapter named {name!r} is attached already", change="choose another name")
        try:
            for part in self.parts:
                part.attach(model, name)
        except ConfigError:
            self.detach(model, name)
            raise

    def num_params(self, model: Model) -> int:
        """Number of trained parameters on ``model``, by formula."""
        return sum(part.num_params(model) for part in self.parts)
