"""Adapter folders of either format on the model they were trained on: loaded, written again, averaged, folded in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import nn

from cypher.adapters.adapter import Adapter
from cypher.adapters.average import AverageStrategy, average_adapters
from cypher.adapters.folder import load_adapter, read_json, save_adapter
from cypher.adapters.folder_contents import ADAPTER_HUB, OURS, FolderContents, describe
from cypher.adapters.hub_folder import HubAdapter, HubModel, load_hub_adapter, save_hub_adapter
from cypher.adapters.hub_pickle import convert_pickles
from cypher.adapters.vera import FrozenProjections, frozen_projections
from cypher.config import AdapterConfig, adapter_config
from cypher.errors import ConfigError, ModelError
from cypher.hub import models
from cypher.hub.catalogue import HubSource
from cypher.models.load import LoadedModel, export_model, load_model, read_config

FolderFormat = Literal["cypher", "adapterhub"]


@dataclass(frozen=True, kw_only=True)
class Exchanged:
    """What was written.

    Args:
        format: Of the new folder.
        notes: What was left out, and what is worth knowing.
    """

    format: str
    notes: tuple[str, ...] = ()


def load_base(contents: FolderContents, model_name: str | None = None, *, offline: bool | None = None) -> LoadedModel:
    """The model that an adapter was trained on.

    Args:
        contents: Of its folder.
        model_name: Another name or folder of that model; ``None`` takes what the folder says.
        offline: Whether the network may be used; ``None`` asks the environment.

    Raises:
        ModelError: It cannot be found, the folder does not say which it is, or holds no single adapter.
    """
    if contents.format not in (OURS, ADAPTER_HUB):
        raise ModelError(f"{contents.path} is an {contents.format}", needed="the folder of one adapter")
    name = model_name or contents.model_name
    if not name:
        raise ModelError(f"{contents.path} does not say which model it is for", change="name it: --model NAME")
    return load_model(_catalogue_name(name), offline=offline)


def load_folder(contents: FolderContents, loaded: LoadedModel, *, name: str | None = None) -> HubAdapter:
    """Attach the adapter of a folder of either format.

    Args:
        contents: Of the folder of one adapter.
        loaded: The model it was trained on.
        name: To attach it under; ``None`` takes the folder's.

    Raises:
        ModelError: It does not fit.
    """
    if contents.format == ADAPTER_HUB:
        return load_hub_adapter(contents.path, loaded.model, name=name)
    attached = load_adapter(contents.path, loaded.model, name=name)
    config = adapter_config(read_json(contents.path / "adapter_config.json")["config"])
    return HubAdapter(name=attached, config=config, model_name=contents.model_name)


def save_folder(folder: Path, loaded: LoadedModel, adapter: HubAdapter, to: FolderFormat, *, model_name: str) -> None:
    """Write an attached adapter in either format.

    Args:
        folder: New or empty.
        loaded: The model that holds it.
        adapter: Which.
        to: The format.
        model_name: Model it was trained on.

    Raises:
        ConfigError: The folder has files.
        ModelError: The format cannot hold it.
    """
    _refuse_files(folder)
    if to == ADAPTER_HUB:
        of = HubModel(name=_hub_name(model_name), type=str(read_config(loaded.folder)["model_type"]))
        save_hub_adapter(folder, loaded.model, adapter.name, config=adapter.config, of=of)
        return
    _refuse_foreign_projections(loaded, adapter)
    save_adapter(
        folder,
        loaded.model,
        adapter.name,
        config=adapter.config,
        model_name=_catalogue_name(model_name),
        dtype=torch.float32,
    )


def convert_folder(
    folder: Path, out: Path, to: FolderFormat | None = None, *, model_name: str | None = None
) -> Exchanged:
    """Write an adapter's folder in the other format, or AdapterHub's pickles as safetensors.

    Pickles are read by ``torch.load(weights_only=True)`` and nothing else.

    Args:
        folder: Of an adapter; with pickles also of a fusion or a whole set-up.
        out: New or empty.
        to: The format; ``None`` is AdapterHub's for our folders and for pickles, and ours for the rest. Pickles become
            safetensors of the same format first.
        model_name: Another name or folder of the model it was trained on.

    Raises:
        ConfigError: ``out`` has files, or the folder is of that format already.
        ModelError: The folder, or its model, cannot be read, or the format cannot hold the adapter.
    """
    _refuse_files(out)
    contents = describe(folder)
    if contents.has_pickles and to in (None, ADAPTER_HUB):
        return Exchanged(format=ADAPTER_HUB, notes=converted_notes(convert_pickles(folder, out)))
    target: FolderFormat = to or ("adapterhub" if contents.format == OURS else "cypher")
    if contents.format == target:
        raise ConfigError(f"{folder} is in the format {target} already", change="choose the other with --to")
    loaded = load_base(contents, model_name)
    adapter = load_folder(contents, loaded)
    save_folder(out, loaded, adapter, target, model_name=model_name or contents.model_name)
    return Exchanged(format=target)


def converted_notes(pickles: Sequence[Path]) -> tuple[str, ...]:
    """What is said of pickles that were read."""
    return tuple(f"{path} was read as plain tensors (weights_only)" for path in pickles)


def average_folders(
    folders: Sequence[Path],
    out: Path,
    *,
    weights: Sequence[float] | None = None,
    strategy: AverageStrategy = "linear",
    rank: int | None = None,
    to: FolderFormat | None = None,
    model_name: str | None = None,
) -> AdapterConfig:
    """Average adapters of one model into a new folder; arguments as of :func:`average_adapters`.

    Args:
        folders: Of either format.
        out: New or empty.
        weights: One each.
        strategy: How.
        rank: Of the new LoRA.
        to: The format of the new folder; ``None`` takes the first one's.
        model_name: Another name or folder of the model they were trained on.

    Raises:
        ConfigError: They are of different configurations or models, or ``out`` has files.
        ModelError: One cannot be read.
    """
    _refuse_files(out)
    contents = [describe(folder) for folder in folders]
    names = {_catalogue_name(each.model_name) for each in contents}
    if len(names) > 1 and model_name is None:
        raise ConfigError(f"adapters of {' and '.join(sorted(names))}", needed="adapters of one model")
    loaded = load_base(contents[0], model_name)
    configs = {}
    for number, each in enumerate(contents):
        adapter = load_folder(each, loaded, name=f"averaged_{number}")
        configs[adapter.name] = adapter.config
    config = average_adapters(loaded.model, "average", configs, weights=weights, strategy=strategy, rank=rank)
    made = HubAdapter(name="average", config=config, model_name=contents[0].model_name)
    target: FolderFormat = to or ("cypher" if contents[0].format == OURS else "adapterhub")
    save_folder(out, loaded, made, target, model_name=model_name or contents[0].model_name)
    return config


def merge_folder(folder: Path, out: Path, *, model_name: str | None = None) -> None:
    """Fold an adapter into its model and write that for transformers.

    Args:
        folder: Of an adapter, of either format.
        out: New or empty.
        model_name: Another name or folder of the model it was trained on.

    Raises:
        ConfigError: ``out`` has files.
        ModelError: The method does not fold, with the reason.
    """
    _refuse_files(out)
    contents = describe(folder)
    loaded = load_base(contents, model_name)
    adapter = load_folder(contents, loaded)
    refuse_plugs(loaded, adapter.name, contents.method)
    Adapter.merge(loaded.model)
    export_model(loaded, out)


def refuse_plugs(loaded: LoadedModel, name: str, method: str) -> None:
    """Refuse to fold what is no change of a weight.

    Raises:
        ModelError: Something is attached between the layers.
    """
    for path, part in loaded.model.named_modules():
        if isinstance(part, nn.ModuleDict) and path.endswith("plugs") and name in part:
            place = path.removesuffix(".plugs")
            raise ModelError(
                f"{name!r} ({method}) does not fold into the model: it sits between its layers, at {place}",
                needed="a method that changes weights (lora, dora, vera, dvora, ia3)",
            )


def _catalogue_name(name: str) -> str:
    """Our short name of a repository, if it has one."""
    for entry in models().values():
        if any(isinstance(source, HubSource) and source.repository == name for source in entry.sources):
            return entry.name
    return name


def _hub_name(name: str) -> str:
    """The repository behind a short name: AdapterHub's library knows no other."""
    sources = models()[name].sources if name in models() else ()
    return next((source.repository for source in sources if isinstance(source, HubSource)), name)


def _refuse_foreign_projections(loaded: LoadedModel, adapter: HubAdapter) -> None:
    """Our folders keep the seed of VeRA's random matrices, not the matrices."""
    kept = frozen_projections(loaded.model, adapter.name)
    if not kept:
        return
    config = adapter.config
    assert config.method in ("vera", "dvora"), "no other method has random matrices"
    down, up = kept
    drawn = FrozenProjections(down.shape[1], up.shape[0], rank=config.rank, seed=config.seed)
    if not (torch.equal(drawn.down, down) and torch.equal(drawn.up, up)):
        raise ModelError(
            f"the random matrices of {adapter.name!r} are no seed's, and Cypher's folders keep the seed alone",
            change="keep AdapterHub's folder: it loads as it is",
        )


def _refuse_files(folder: Path) -> None:
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"{folder} is not empty", change="give a new folder")
