"""Adapters that work together in a task: trained ones that a recipe names, what is trained beside them, their folder.

The folder has ``arrangement.json``, a folder an adapter in ``adapters/``, and ``fusion.safetensors`` of a fusion.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from cypher.adapters.adapter import freeze_all_but
from cypher.adapters.arrangement import activate
from cypher.adapters.composition import Fuse, Stack, Tree, compositions_of, from_dict, names_of
from cypher.adapters.exchange import load_folder
from cypher.adapters.folder import read_json, save_adapter
from cypher.adapters.folder_contents import ADAPTER_HUB, OURS, FolderContents, describe
from cypher.adapters.fusion import add_fusion, freeze_all_but_fusion, fusion_parameters
from cypher.config import AdapterConfig, ArrangementConfig, FusionConfig, supports
from cypher.config.section import parse
from cypher.errors import ConfigError, ModelError, first_line
from cypher.files import write_text
from cypher.hub.weights import read_safetensors, write_safetensors
from cypher.models.headed import HeadedModel
from cypher.models.load import LoadedModel
from cypher.models.model import Model
from cypher.tasks.find_reader import ADAPTERS, ARRANGEMENT, find_adapter

_FUSION = "fusion.safetensors"


@dataclass(frozen=True, kw_only=True)
class ArrangedAdapters:
    """How the adapters of a task work together.

    Args:
        tree: Over all of them.
        fusion: Options of the fusion in it; without one they say nothing.
        frozen: Name → folder of those that stay as they are.
    """

    tree: Tree
    fusion: FusionConfig
    frozen: Mapping[str, Path]


def keep_adapters(
    config: ArrangementConfig, folder: Path, *, model_name: str, taken: str, has_begun: bool
) -> dict[str, Path]:
    """Copy the trained adapters that a recipe names, so that a resumed run has those it was begun with.

    Args:
        config: Names them.
        folder: Gets a folder each.
        model_name: They must have been trained on.
        taken: Name of the adapter that is trained beside them.
        has_begun: Whether the run has learnt something already: then it goes on with the copies it has.

    Returns:
        Name → folder, in the order of the recipe.

    Raises:
        ModelError: One cannot be found, or is none.
        ConfigError: Two have one name, or one was trained on another model.
    """
    kept: dict[str, Path] = {}
    for given in _named(config):
        name = _name_of(given)
        if name in kept or name == taken:
            other = f"the adapter that is trained is called {taken}" if name == taken else "another one is called so"
            raise ConfigError(
                f"[arrangement] names an adapter {name!r} by {given!r}, and {other}",
                change="copy its folder under another name, and name that",
            )
        kept[name] = folder / name
        if not (has_begun and (folder / name).is_dir()):
            contents = describe(find_adapter(given))
            _check(contents, given, model_name)
            beside = folder / f".{name}"
            shutil.rmtree(beside, ignore_errors=True)
            beside.mkdir(parents=True)
            for file in ("adapter_config.json", "adapter.safetensors"):
                shutil.copyfile(contents.path / file, beside / file)
            shutil.rmtree(folder / name, ignore_errors=True)
            beside.rename(folder / name)
    return kept


def arrange(
    loaded: LoadedModel, config: ArrangementConfig, frozen: Mapping[str, Path], *, trained: str, task: str
) -> ArrangedAdapters:
    """Attach the trained adapters and make the fusion; the recipe's own adapter is attached behind them.

    Args:
        loaded: Gets them.
        config: Says how they work together.
        frozen: As :func:`keep_adapters` returns it.
        trained: Name of the adapter that is trained; not used in a fusion.
        task: Kind of the task.

    Raises:
        ModelError: An adapter does not fit the model.
        ConfigError: It cannot be fused.
    """
    methods = {name: load_folder(describe(folder), loaded, name=name).config.method for name, folder in frozen.items()}
    for name in names_of(Fuse(*_fused(config))) if config.fuse else ():
        support = supports(model=loaded.architecture.name, adapter=methods[name], task=task, arrangement="fuse")
        if not support:
            raise ConfigError(f"arrangement.fuse with {name!r}: {support.reason}")
    last: Tree = Fuse(*_fused(config)) if config.fuse else trained
    tree = last if config.stack_on is None else Stack(_name_of(config.stack_on), last)
    if isinstance(last, Fuse):
        add_fusion(loaded.model, last, config.fusion)
    return ArrangedAdapters(tree=tree, fusion=config.fusion, frozen=frozen)


def set_to_work(model: Model, arranged: ArrangedAdapters, *, drop_in_training: int) -> None:
    """Train what is new of an arrangement, whose adapters are all attached by now, and nothing else; go through it."""
    fuses = _fuses(arranged.tree)
    if fuses:
        freeze_all_but_fusion(model, fuses[0])
    else:
        (new,) = set(names_of(arranged.tree)) - set(arranged.frozen)
        freeze_all_but(model, new)
    activate(model, arranged.tree, drop_in_training=drop_in_training)


def check_depth(headed: HeadedModel, most: int) -> None:
    """Refuse to leave out more blocks' adapters than there are, or all of them where nothing else is trained.

    Args:
        headed: With its adapters, and what of it is frozen.
        most: Blocks that a step may go without.

    Raises:
        ConfigError: With the number there may be.
    """
    blocks = max(int(name.rpartition(".")[2]) for name, _ in headed.model.blocks()) + 1
    if most > blocks:
        raise ConfigError(f"arrangement.drop_in_training = {most}", needed=f"at most {blocks}, the model's blocks")
    trained = list(headed.trained())
    if all(name.startswith("model.segments.") for name in trained):
        last = max((int(name.split(".")[3]) for name in trained), default=0)
        if most > last:
            raise ConfigError(
                f"arrangement.drop_in_training = {most} with nothing that is trained but adapters up to block {last}",
                needed=f"at most {last}: a step without any of them learns nothing",
            )


def save_arrangement(
    folder: Path, model: Model, arranged: ArrangedAdapters, *, adapter: AdapterConfig | None, model_name: str
) -> None:
    """Write all adapters of an arrangement, frozen ones as they came.

    Args:
        folder: Of the task; adapters in it are replaced.
        model: Holds them.
        arranged: How they work together.
        adapter: Of the one that was trained; ``None`` where a fusion was.
        model_name: What was trained on, as the catalogue names it.
    """
    shutil.rmtree(folder / ADAPTERS, ignore_errors=True)
    for name in names_of(arranged.tree):
        if name in arranged.frozen:
            shutil.copytree(arranged.frozen[name], folder / ADAPTERS / name)
        else:
            assert adapter is not None, "what is not frozen is the recipe's adapter"
            save_adapter(folder / ADAPTERS / name, model, name, config=adapter, model_name=model_name)
    about = {
        "model_name": model_name,
        "composition": arranged.tree if isinstance(arranged.tree, str) else arranged.tree.to_dict(),
        "fusion": arranged.fusion.model_dump(mode="json"),
    }
    for fuse in _fuses(arranged.tree):
        tensors = {path: value.to(torch.float16) for path, value in fusion_parameters(model, fuse).items()}
        write_safetensors(folder / _FUSION, tensors)
    write_text(folder / ARRANGEMENT, json.dumps(about, indent=1) + "\n")


def arrangement_model(folder: Path) -> str:
    """The model that an arrangement in a folder was trained on.

    Raises:
        ModelError: Its file does not say.
    """
    return str(_read(folder)["model_name"])


def load_arrangement(folder: Path, loaded: LoadedModel) -> ArrangedAdapters:
    """Attach all that :func:`save_arrangement` has written, and go through it.

    Raises:
        ModelError: A part is missing or does not fit.
    """
    about = _read(folder)
    try:
        tree = from_dict(about["composition"])
        fusion: FusionConfig = parse(FusionConfig, about["fusion"], where="fusion")
    except (KeyError, TypeError, ConfigError) as error:
        raise ModelError(f"{folder / ARRANGEMENT} is no arrangement's ({first_line(error)})") from error
    frozen = {name: folder / ADAPTERS / name for name in names_of(tree)}
    for name, place in frozen.items():
        load_folder(describe(place), loaded, name=name)
    for fuse in _fuses(tree):
        add_fusion(loaded.model, fuse, fusion)
        saved, own = read_safetensors(folder / _FUSION), fusion_parameters(loaded.model, fuse)
        if {path: value.shape for path, value in saved.items()} != {path: value.shape for path, value in own.items()}:
            raise ModelError(f"{folder / _FUSION} does not fit the model", needed=f"a fusion of {fuse.name}")
        with torch.no_grad():
            for path, value in own.items():
                value.copy_(saved[path])
    activate(loaded.model, tree)
    return ArrangedAdapters(tree=tree, fusion=fusion, frozen=frozen)


def _read(folder: Path) -> dict[str, Any]:
    about = read_json(folder / ARRANGEMENT)
    if missing := {"model_name", "composition", "fusion"} - set(about):
        raise ModelError(f"{folder / ARRANGEMENT} has no {min(missing)}", needed="what cypher train has written")
    return about


def _named(config: ArrangementConfig) -> list[str]:
    return [*([] if config.stack_on is None else [config.stack_on]), *config.fuse]


def _fused(config: ArrangementConfig) -> list[str]:
    return [_name_of(given) for given in config.fuse]


def _fuses(tree: Tree) -> list[Fuse]:
    return [each for each in compositions_of(tree) if isinstance(each, Fuse)]


def _name_of(given: str) -> str:
    """Of an adapter in the model: its run's or folder's, without what parameters may not be called."""
    path = Path(given).expanduser()
    if not path.exists():  # on the hub, maybe with a revision
        path = Path(given.partition("@")[0])
    parts: Sequence[str] = path.resolve().parts
    name = parts[-2] if parts[-1] in ("task", "reader") and len(parts) > 1 else parts[-1]
    return re.sub(r"[^\w-]", "_", name)


def _check(contents: FolderContents, given: str, model_name: str) -> None:
    """Refuse what is no single adapter of the recipe's model."""
    if contents.format not in (OURS, ADAPTER_HUB):
        raise ConfigError(f"[arrangement] names {given}, an {contents.format}", needed="single adapters")
    if contents.has_pickles:
        raise ModelError(
            f"{contents.path} has no adapter.safetensors",
            change=f"convert a pickle, where you trust it: cypher adapters convert {contents.path} OUT",
        )
    # AdapterHub's folders call a model by any of its names: those are told by their shapes alone.
    if contents.format == OURS and not _is_same(contents.model_name, model_name):
        raise ConfigError(
            f"[arrangement] names {given}, an adapter of {contents.model_name}",
            needed=f"one of {model_name}, the recipe's model",
        )


def _is_same(one: str, other: str) -> bool:
    return one == other or (Path(one).is_dir() and Path(other).is_dir() and Path(one).samefile(other))
