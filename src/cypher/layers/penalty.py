"""Penalties on parameters alone, added to the loss once a step."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn


class Penalised(ABC):
    """A module that has one."""

    @abstractmethod
    def penalty(self) -> Tensor | None:
        """A scalar that depends on the module's parameters alone; ``None`` where there is nothing to penalise."""


def penalty_of(model: nn.Module) -> Tensor | None:
    """The sum over all parts that are trained; ``None`` if there are none."""
    found = [module.penalty() for module in model.modules() if isinstance(module, Penalised)]
    terms = [term for term in found if term is not None and term.requires_grad]
    return torch.stack(terms).sum() if terms else None
