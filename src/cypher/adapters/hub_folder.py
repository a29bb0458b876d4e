"""Folders of AdapterHub's library: one adapter, written and read so that both give the same outputs.

``adapter_config.json`` and ``adapter.safetensors`` hold it. The library's pickles are not read;
:mod:`cypher.adapters.hub_pickle` turns them into safetensors.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cypher.adapters.adapter import Adapter
from cypher.adapters.dora import DoraDelta
from cypher.adapters.folder import read_json
from cypher.adapters.hub_architecture import MODEL_CLASSES, hub_architecture
from cypher.adapters.hub_config import from_hub_config, to_hub_config
from cypher.adapters.hub_names import frozen_tensors, hub_tensors, is_redundant, pack, plain_names, unpack
from cypher.adapters.methods import adapter_of
from cypher.adapters.reft import Intervention
from cypher.config import AdapterConfig
from cypher.errors import ModelError
from cypher.files import write_text
from cypher.hub.weights import read_safetensors, write_safetensors
from cypher.layers.linear import Linear
from cypher.models.model import Model

ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter.safetensors"
PICKLES = {
    ADAPTER_WEIGHTS: "pytorch_adapter.bin",
    "model_adapter_fusion.safetensors": "pytorch_model_adapter_fusion.bin",
    "model_head.safetensors": "pytorch_model_head.bin",
}
"""What the library calls the same weights as a pickle."""

FORMAT = "adapters.1.3.0"
"""The release of the library whose format is written."""


@dataclass(frozen=True, kw_only=True)
class HubAdapter:
    """An adapter that was loaded from a folder.

    Args:
        name: It is attached under.
        config: Of its method.
        model_name: Model it was trained on, as the folder says.
    """

    name: str
    config: AdapterConfig
    model_name: str


@dataclass(frozen=True, kw_only=True)
class HubModel:
    """What a folder says of the model it is for.

    Args:
        name: As on the hub, such as ``bert-base-uncased``.
        type: Its ``model_type``, such as ``bert``, ``xlm-roberta``, ``llama`` or ``bart``.
    """

    name: str
    type: str

    def about(self, width: int) -> dict[str, Any]:
        """The fields of every configuration file."""
        return {
            "model_name": self.name,
            "model_type": self.type,
            "model_class": self._classes()[0],
            "hidden_size": width,
            "version": FORMAT,
        }

    def prefixed(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The tensors by names that the library finds in a plain model as well as in one with heads."""
        return {f"{self._classes()[1]}.{name}": tensor for name, tensor in tensors.items()}

    def _classes(self) -> tuple[str, str]:
        if self.type not in MODEL_CLASSES:
            raise ModelError(
                f"model_type {self.type!r} in AdapterHub's format", needed=f"one of {', '.join(MODEL_CLASSES)}"
            )
        return MODEL_CLASSES[self.type]


def save_hub_adapter(folder: Path, model: Model, name: str, *, config: AdapterConfig, of: HubModel) -> None:
    """Write what is attached as ``name`` for AdapterHub's library.

    Args:
        folder: Made if it is absent.
        model: Holds the adapter.
        name: It is attached under.
        config: Of the method.
        of: The model it was trained on.

    Raises:
        ModelError: The library has nothing that gives the same outputs.
    """
    architecture = hub_architecture(model)
    values = to_hub_config(config, architecture, len(list(model.blocks())))
    _refuse_scaled_bias(model, name)
    _refuse_other_shapes(model, name)
    parameters = {**Adapter.parameters_of(model, name), **_sources_with_projection(model, name)}
    tensors = {
        theirs: value
        for tensor in hub_tensors(model, name, architecture)
        for theirs, value in pack(tensor, parameters).items()
    }
    write_safetensors(folder / ADAPTER_WEIGHTS, of.prefixed({**tensors, **frozen_tensors(model, name)}))
    write_hub_json(folder / ADAPTER_CONFIG, {"name": name, "config": values, **of.about(model.width)})


def load_hub_adapter(folder: Path, model: Model, *, name: str | None = None) -> HubAdapter:
    """Attach an adapter that AdapterHub's library, or :func:`save_hub_adapter`, has written.

    A head beside it is not read; :func:`cypher.adapters.hub_heads.load_hub_head` does that.

    Args:
        folder: With its two files.
        model: Of the same architecture and sizes.
        name: To attach it under; ``None`` takes the folder's.

    Raises:
        ModelError: It is a pickle, for a model of another shape, or has no counterpart here; nothing is attached then.
        ConfigError: The name is taken, or is no name here.
    """
    about = read_json(folder / ADAPTER_CONFIG)
    config = hub_config_of(about, model, where=folder)
    theirs, ours = str(about["name"]), name or str(about["name"])
    tensors = plain_names(read_hub_weights(folder, ADAPTER_WEIGHTS))
    adapter_of(config).attach(model, ours)
    try:
        _adopt(folder, model, ours, theirs, tensors)
        _refuse_scaled_bias(model, ours)
    except ModelError:
        Adapter.detach(model, ours)
        raise
    return HubAdapter(name=ours, config=config, model_name=str(about.get("model_name") or ""))


def hub_config_of(about: Mapping[str, Any], model: Model, *, where: Path) -> AdapterConfig:
    """Our configuration of what the library's ``adapter_config.json`` says.

    Raises:
        ModelError: It is for another model, or has no counterpart here.
    """
    architecture = hub_architecture(model)
    if about.get("hidden_size") not in (None, model.width):
        raise ModelError(
            f"{where} is for width {about['hidden_size']} ({about.get('model_name')})",
            needed=f"an adapter for width {model.width}",
        )
    kind = about.get("model_type")
    if kind is not None and MODEL_CLASSES.get(kind) is None:
        raise ModelError(f"{where} is for a {kind}", needed=f"one of {', '.join(MODEL_CLASSES)}")
    config, version = about.get("config"), about.get("version")
    if not isinstance(config, dict):
        raise ModelError(f"{where} has no configuration", needed=f"a table config in {ADAPTER_CONFIG}")
    return from_hub_config(config, architecture, len(list(model.blocks())), version=version)


def read_hub_weights(folder: Path, file: str) -> dict[str, Tensor]:
    """Tensors of one of the library's files.

    Raises:
        ModelError: There is none, or a pickle alone.
    """
    if not (folder / file).is_file() and (folder / PICKLES[file]).is_file():
        raise ModelError(
            f"{folder / PICKLES[file]} is a pickle, which can run code when read",
            needed=file,
            change=f"convert it where you trust it: cypher adapters convert {folder} OUT",
        )
    return read_safetensors(folder / file)


def write_hub_json(path: Path, values: Mapping[str, Any]) -> None:
    """As the library writes its configurations."""
    write_text(path, json.dumps(values, indent=2, sort_keys=True) + "\n")


@torch.no_grad()
def _adopt(folder: Path, model: Model, ours: str, theirs: str, tensors: Mapping[str, Tensor]) -> None:
    parameters = Adapter.parameters_of(model, ours)
    used: set[str] = set()
    for tensor in hub_tensors(model, ours, hub_architecture(model), called=theirs):
        for path, value in zip(tensor.paths, unpack(tensor, tensors), strict=True):
            if value.shape != parameters[path].shape:
                raise ModelError(
                    f"{folder}: {tensor.name} is for {tuple(value.shape)}", needed=f"{tuple(parameters[path].shape)}"
                )
            parameters[path].copy_(value)
        used |= {name for name in tensors if name == tensor.name or name.startswith(f"{tensor.name}.parametrizations.")}
    for name, matrix in frozen_tensors(model, ours, called=theirs).items():
        if name not in tensors or tensors[name].shape != matrix.shape:
            raise ModelError(
                f"{folder} lacks {name} of {tuple(matrix.shape)}",
                needed="the random matrices of vera (the library's plain models do not save them, its "
                "AdapterModel classes do)",
            )
        matrix.copy_(tensors[name])
        used.add(name)
    if unused := sorted(name for name in tensors if name not in used and not is_redundant(name)):
        raise ModelError(f"{folder}: {unused[0]} has no place", needed="tensors that its configuration names")


def _sources_with_projection(model: Model, name: str) -> dict[str, Tensor]:
    """The library's folders do not say whether ReFT takes a state's own projection away, and it reads that it does.

    ``h + Rᵀ(W h + b)`` is ``h + Rᵀ((W + R) h + b − R h)``: written so, it is the same function.
    """
    return {
        f"{path}.source.weight": part.source.weight + part.rows()
        for path, part in model.named_modules(remove_duplicate=True)
        if isinstance(part, Intervention) and f".plugs.{name}." in path and not part.subtract_projection
    }


def _refuse_scaled_bias(model: Model, name: str) -> None:
    """The library's magnitude scales the bias too; without one, or with zeros, both are the same function."""
    for path, module in model.named_modules():
        if isinstance(module, DoraDelta) and path.endswith(f".deltas.{name}"):
            bias = model.get_submodule(path.removesuffix(f".deltas.{name}")).bias
            if isinstance(bias, Tensor) and bool(bias.count_nonzero()):
                raise ModelError(
                    f"{name!r} is a DoRA of a layer with a bias, which AdapterHub's library scales as well",
                    needed="a model without biases (arXiv 2402.09353 scales the weight alone)",
                )


def _refuse_other_shapes(model: Model, name: str) -> None:
    """The library's random matrices have the shape of the first layer, and all others must have it too."""
    matrices = list(frozen_tensors(model, name).values())
    for layer in model.modules() if matrices else ():
        if not isinstance(layer, Linear) or name not in layer.deltas:
            continue
        if (matrices[0].shape[1], matrices[1].shape[0]) != (layer.in_features, layer.out_features):
            raise ModelError(
                f"{name!r} shares random matrices between layers of different sizes",
                needed="targets of one size for AdapterHub's library",
            )
