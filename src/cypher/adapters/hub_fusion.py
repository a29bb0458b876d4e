"""Fusions in AdapterHub's format: ``adapter_fusion_config.json`` and ``model_adapter_fusion.safetensors``."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from cypher.adapters.composition import Fuse
from cypher.adapters.folder import read_json
from cypher.adapters.fusion import add_fusion, fusion_parameters, remove_fusion
from cypher.adapters.hub_architecture import HubArchitecture, hub_architecture
from cypher.adapters.hub_folder import HubModel, read_hub_weights, write_hub_json
from cypher.adapters.hub_names import plain_names
from cypher.config import FusionConfig
from cypher.errors import ConfigError, ModelError
from cypher.hub.weights import write_safetensors
from cypher.layers.sites import JoinSite
from cypher.models.model import Model

FUSION_CONFIG, FUSION_WEIGHTS = "adapter_fusion_config.json", "model_adapter_fusion.safetensors"


def save_hub_fusion(folder: Path, model: Model, fuse: Fuse, *, of: HubModel) -> None:
    """Write the weights of a fusion for AdapterHub's library.

    Args:
        folder: Made if it is absent.
        model: Holds the fusion.
        fuse: Which.
        of: The model it was trained on.

    Raises:
        ConfigError: The model has no such fusion.
    """
    parameters = fusion_parameters(model, fuse)
    if not parameters:
        raise ConfigError(f"{fuse!r} has no weights", change="make them with add_fusion, or load them")
    config = next(site.fusions[fuse.name].config for site in _joins(model) if fuse.name in site.fusions)
    assert isinstance(config, FusionConfig), "a fusion keeps its configuration"
    called, architecture = hub_fusion_name(fuse), hub_architecture(model)
    names = _fusion_names(model, fuse, called, architecture)
    tensors = {theirs: parameters[ours].float() for ours, theirs in names.items()}
    write_safetensors(folder / FUSION_WEIGHTS, of.prefixed(tensors))
    values = {
        "key": config.key, "query": config.query, "value": config.value, "query_before_ln": False,
        "regularization": config.regularisation > 0, "residual_before": False, "temperature": False,
        "value_before_softmax": True, "value_initialized": True, "dropout_prob": config.dropout or None,
    }  # fmt: skip
    about = {"name": called, "adapter_names": called.split(","), "config": values, **of.about(model.width)}
    write_hub_json(folder / FUSION_CONFIG, about)


def load_hub_fusion(folder: Path, model: Model, fuse: Fuse | None = None) -> Fuse:
    """Load the weights of a fusion onto the adapters it fuses.

    Args:
        folder: With its two files.
        model: The adapters are attached.
        fuse: Where the fused are stacks, or have other names here; ``None`` takes the folder's names.

    Returns:
        The fusion.

    Raises:
        ModelError: It does not fit the adapters, or has options that have no counterpart here.
    """
    about = read_json(folder / FUSION_CONFIG)
    called, values = str(about["name"]), dict(about["config"])
    fuse = fuse or Fuse(*(str(name) for name in about.get("adapter_names") or called.split(",")))
    for option in ("query_before_ln", "residual_before", "temperature"):
        if values.get(option):
            raise ModelError(f"{folder}: a fusion with {option}", needed="one without: it mixes what adapters add")
    config = FusionConfig(
        query=values["query"],
        key=values["key"],
        value=values["value"],
        dropout=values.get("dropout_prob") or 0.0,
        regularisation=0.01 if values.get("regularization") else 0.0,
    )
    tensors = plain_names(read_hub_weights(folder, FUSION_WEIGHTS))
    add_fusion(model, fuse, config)
    parameters = fusion_parameters(model, fuse)
    # The library makes weights at places without adapters too; they are never used.
    names = _fusion_names(model, fuse, called, hub_architecture(model))
    for ours, theirs in names.items():
        if theirs not in tensors or tensors[theirs].shape != parameters[ours].shape:
            remove_fusion(model, fuse)
            raise ModelError(f"{folder} has no fitting {theirs}", needed="a fusion of the adapters that are attached")
    with torch.no_grad():
        for ours, theirs in names.items():
            parameters[ours].copy_(tensors[theirs])
    return fuse


def hub_fusion_name(fuse: Fuse) -> str:
    """What the library calls it: of a stack it takes the last adapter alone."""
    return ",".join(child if isinstance(child, str) else list(child.names())[-1] for child in fuse.children)


def _fusion_names(model: Model, fuse: Fuse, called: str, architecture: HubArchitecture) -> dict[str, str]:
    names = {}
    for path in fusion_parameters(model, fuse):
        where, _, inner = path.partition(f".fusions.{fuse.name}.")
        _, segment, number, place = where.split(".")
        block, join = architecture.blocks[segment].format(number), architecture.joins[place.removesuffix("_join")]
        names[path] = f"{block}.{join}.adapter_fusion_layer.{called}.{inner}"
    return names


def _joins(model: nn.Module) -> list[JoinSite]:
    return [module for module in model.modules() if isinstance(module, JoinSite)]
