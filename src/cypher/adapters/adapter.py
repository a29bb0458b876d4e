"""What every adapter method answers: attach, detach, merge, and which parameters are its own."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import nn

from cypher.adapters.merge import Merged, merge
from cypher.models.model import Model

# The places a method may plug into; whatever is attached lives in one of these dictionaries under its name.
PLACES = ("deltas", "plugs")


class Adapter(ABC):
    """A method that trains a small part while the model stays frozen."""

    @abstractmethod
    def attach(self, model: Model, name: str) -> None:
        """Plug the method's modules into the model's sites under ``name``.

        Args:
            model: Its sites or linears get new, trainable modules; its own weights stay as they are.
            name: To find what was attached again; not yet in use on this model.

        Raises:
            ConfigError: The name is taken or no name at all, or the method has no place in this model.
        """

    @abstractmethod
    def num_params(self, model: Model) -> int:
        """Number of trained parameters on ``model``, by formula."""

    @staticmethod
    def detach(model: Model, name: str) -> None:
        """Unplug everything called ``name``; the model is what it was before.

        Args:
            model: It computes again what it did before ``attach``.
            name: What was attached as.
        """
        for path, module in list(model.named_modules()):
            if isinstance(module, nn.ModuleDict) and path.rsplit(".", 1)[-1] in PLACES and name in module:
                del module[name]

    @staticmethod
    def parameters_of(model: Model, name: str) -> dict[str, nn.Parameter]:
        """The parameters attached as ``name``, by their path in the model.

        Args:
            model: Holds the adapter.
            name: It is attached under.
        """
        return {
            path: parameter
            for path, parameter in model.named_parameters()
            if any(f".{place}.{name}." in f".{path}" for place in PLACES)
        }

    @staticmethod
    def merge(model: Model) -> Merged:
        """Fold all attached deltas into the weights; see :func:`cypher.adapters.merge.merge`."""
        return merge(model)


def freeze_all_but(model: Model, name: str) -> None:
    """Leave only the parameters attached as ``name`` to be trained.

    Args:
        model: ``requires_grad`` of all its parameters is set.
        name: Of the adapter that is trained.
    """
    own = Adapter.parameters_of(model, name)
    for path, parameter in model.named_parameters():
        parameter.requires_grad_(path in own)
