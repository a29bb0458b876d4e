"""Penalties on parameters alone, added to the loss once a step."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn


class Penalised(ABC):
    """A module that has one."""

    @abstractmethod
    def penalty(self) -> Tensor:
        """A scalar that depends on the module's parameters alone."""


def penalty_of(model: nn.Module) -> Tensor | None:
    """The sum over all parts that are trained; ``None`` if there are none."""
    terms = [
        module.penalty()
        for module in model.modules()
        if isinstance(module, Penalised) and any(parameter.requires_grad for parameter in module.parameters())
    ]
    return torch.stack(terms).sum() if terms else None
