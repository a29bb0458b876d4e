"""Prediction heads as AdapterHub's library writes them: ``head_config.json`` and ``model_head.safetensors``.

A head there is a stack of linear layers with an activation between them, over every token or over the first.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from cypher.adapters.folder import read_json
from cypher.adapters.hub_folder import HubModel, read_hub_weights, write_hub_json
from cypher.errors import ModelError
from cypher.hub.weights import write_safetensors

HEAD_CONFIG, HEAD_WEIGHTS = "head_config.json", "model_head.safetensors"


@dataclass(frozen=True, kw_only=True)
class HubHead:
    """A prediction head.

    Args:
        name: Of the head; the library uses the one that has its adapter's name.
        kind: ``question_answering``, ``classification``, ``tagging`` or another ``head_type`` of the library.
        layers: Weight ``(out, in)`` and bias ``(out,)`` of every linear layer, in order.
        activation: Between them.
        labels: Their names, in order; empty where the folder has none.
    """

    name: str
    kind: str
    layers: tuple[tuple[Tensor, Tensor | None], ...]
    activation: str | None = "tanh"
    labels: tuple[str, ...] = ()


def save_hub_head(folder: Path, width: int, head: HubHead, *, of: HubModel) -> None:
    """Write a head for the library's model with heads, beside its adapter or alone.

    Args:
        folder: Made if it is absent.
        width: Of the model's hidden states.
        head: Its layers.
        of: The model it was trained on, with its type.

    Raises:
        ModelError: The library has no heads for that type.
    """
    config = {
        "head_type": head.kind,
        "num_labels": len(head.layers[-1][0]),
        "layers": len(head.layers),
        "activation_function": head.activation,
        "label2id": {label: number for number, label in enumerate(head.labels)} or None,
    }
    tensors = {}
    for number, (weight, bias) in enumerate(head.layers):
        # Between two linear layers there stand an activation and a dropout, and a dropout is first.
        place = f"heads.{head.name}.{3 * number + 1}"
        tensors[f"{place}.weight"] = weight.float()
        if bias is not None:
            tensors[f"{place}.bias"] = bias.float()
    write_safetensors(folder / HEAD_WEIGHTS, tensors)
    write_hub_json(folder / HEAD_CONFIG, {"name": head.name, "config": config, **of.about(width)})


def load_hub_head(folder: Path) -> HubHead:
    """Read a head.

    Raises:
        ModelError: It is a pickle, or no stack of linear layers.
    """
    about = read_json(folder / HEAD_CONFIG)
    config = about.get("config")
    if not isinstance(config, dict):
        raise ModelError(
            f"{folder} holds the head of a {about.get('model_class')}", needed="one of a model with named heads"
        )
    name = str(about["name"])
    tensors = read_hub_weights(folder, HEAD_WEIGHTS)
    found = {
        int(match[1]): (tensors[path], tensors.get(path.removesuffix("weight") + "bias"))
        for path in tensors
        if (match := re.fullmatch(rf"heads\.{re.escape(name)}\.(\d+)\.weight", path))
    }
    if len(found) != config.get("layers", 1):
        raise ModelError(f"{folder}: a {config.get('head_type')} head", needed="a stack of linear layers")
    numbers = config.get("label2id") or {}
    return HubHead(
        name=name,
        kind=str(config["head_type"]),
        layers=tuple(found[number] for number in sorted(found)),
        activation=config.get("activation_function"),
        labels=tuple(sorted(numbers, key=lambda label: int(numbers[label]))),
    )
