"""Folding deltas into weights, and taking it back."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from cypher.errors import ModelError
from cypher.layers.linear import Delta, Linear
from cypher.models.model import Model


class Merged:
    """What :func:`merge` has folded: the weights as they were before, and the deltas.

    Args:
        layers: Each with its weight, its bias and its deltas before.
    """

    def __init__(self, layers: list[tuple[Linear, Tensor, Tensor | None, dict[str, nn.Module]]]) -> None:
        self._layers = layers

    @torch.no_grad()
    def undo(self) -> None:
        """Put the weights back, bit by bit, and attach the deltas again; a second call does nothing."""
        for layer, weight, bias, deltas in self._layers:
            layer.weight.copy_(weight)
            if bias is not None:
                layer.bias.copy_(bias)
            layer.deltas.update(deltas)
        self._layers = []


@torch.no_grad()
def merge(model: Model) -> Merged:
    """Fold all attached deltas into the weights: the same function at no extra cost.

    What sits in sites between the layers is no change of a weight and stays attached.

    Returns:
        The way back; it holds a copy of the weights that were changed.

    Raises:
        ModelError: What is attached has no delta, or one that cannot be folded; the model is unchanged then.
    """
    layers = [layer for layer in model.modules() if isinstance(layer, Linear) and layer.deltas]
    is_plugged = any(name.endswith("plugs") and len(cast(nn.ModuleDict, part)) for name, part in model.named_modules())
    if not layers and is_plugged:
        raise ModelError(
            "nothing that is attached can be folded into a weight",
            needed="deltas of linear layers (lora, ia3, dora, …)",
        )
    for layer in layers:
        for delta in layer.deltas.values():
            if not cast(Delta, delta).is_mergeable:
                cast(Delta, delta).merged(layer.weight, layer.bias)  # says why
    before: list[tuple[Linear, Tensor, Tensor | None, dict[str, nn.Module]]] = []
    for layer in layers:
        bias = None if layer.bias is None else layer.bias.detach().clone()
        before.append((layer, layer.weight.detach().clone(), bias, dict(layer.deltas.items())))
        layer.merge()
    return Merged(before)
