"""Activations that adapters choose from by name."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from cypher.config import AdapterActivation
from cypher.layers.feed_forward import ACTIVATIONS

ADAPTER_ACTIVATIONS: dict[AdapterActivation, Callable[[Tensor], Tensor]] = {
    "relu": ACTIVATIONS["relu"],
    "gelu": ACTIVATIONS["gelu"],
    "gelu_tanh": ACTIVATIONS["gelu_tanh"],
    "silu": ACTIVATIONS["silu"],
    "tanh": torch.tanh,
    "identity": lambda values: values,
}
