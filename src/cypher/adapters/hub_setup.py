"""Whole set-ups in AdapterHub's format: one sub-folder an adapter, ``a,b`` for a fusion, and ``adapter_setup.json``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from torch import nn

from cypher.adapters.adapter import PLACES
from cypher.adapters.composition import (
    Average,
    BatchSplit,
    Composition,
    Fuse,
    MultiTask,
    Parallel,
    Split,
    Stack,
    Tree,
    compositions_of,
    names_of,
)
from cypher.adapters.dora import DoraDelta
from cypher.adapters.folder import read_json
from cypher.adapters.hub_folder import (
    FORMAT,
    HubModel,
    load_hub_adapter,
    save_hub_adapter,
    write_hub_json,
)
from cypher.adapters.hub_fusion import hub_fusion_name, load_hub_fusion, save_hub_fusion
from cypher.config import AdapterConfig
from cypher.errors import ConfigError, ModelError
from cypher.layers.linear import Delta
from cypher.layers.plugs import EmbeddingPlug, FusiblePlug, KeyValuePlug, OutputPlug
from cypher.models.model import Model

SETUP = "adapter_setup.json"

_KINDS: dict[str, type[Composition]] = {
    kind.__name__: kind for kind in (Stack, Fuse, Split, BatchSplit, MultiTask, Parallel, Average)
}


def save_hub_setup(
    folder: Path, model: Model, tree: Tree, *, configs: Mapping[str, AdapterConfig], of: HubModel
) -> None:
    """Write a composition with all its adapters and fusions for AdapterHub's library.

    Args:
        folder: Made if it is absent.
        model: Holds them.
        tree: The composition, or one adapter's name.
        configs: Of every adapter, by its name.
        of: The model they were trained on.

    Raises:
        ModelError: The library gives other outputs for this composition, or for an adapter of it.
        ConfigError: An adapter has no configuration, or a fusion no weights.
    """
    _refuse_other_outputs(model, tree)
    values = setup_to_hub(Stack(tree) if isinstance(tree, str) else tree)
    for name in names_of(tree):
        if name not in configs:
            raise ConfigError(f"no configuration of {name!r}", change="give one for every adapter of the composition")
        save_hub_adapter(folder / name, model, name, config=configs[name], of=of)
    for fuse in _fusions(tree):
        save_hub_fusion(folder / hub_fusion_name(fuse), model, fuse, of=of)
    write_hub_json(folder / SETUP, {"adapter_setup": values, "head_setup": None, "version": FORMAT})


def load_hub_setup(folder: Path, model: Model) -> tuple[Tree, dict[str, AdapterConfig]]:
    """Attach all adapters of a set-up, load its fusions, and say how they are composed.

    Heads are left out; :func:`cypher.adapters.hub_heads.load_hub_head` reads one from its adapter's sub-folder.

    Args:
        folder: Of the set-up.
        model: Of the same architecture and sizes.

    Returns:
        The composition, for :func:`cypher.adapters.arrangement.activate`, and every adapter's configuration.

    Raises:
        ModelError: A part cannot be read or does not fit; see :func:`cypher.adapters.hub_folder.load_hub_adapter`.
    """
    tree = setup_from_hub(read_json(folder / SETUP)["adapter_setup"])
    configs = {name: load_hub_adapter(folder / name, model, name=name).config for name in names_of(tree)}
    for fuse in _fusions(tree):
        load_hub_fusion(folder / hub_fusion_name(fuse), model, fuse)
    return tree, configs


def setup_to_hub(tree: Composition) -> dict[str, Any]:
    """The library's JSON of a composition.

    Example:
        >>> setup_to_hub(Stack("a"))
        {'type': 'Stack', 'children': [{'type': 'single', 'children': ['a']}]}
    """
    children = [
        {"type": "single", "children": [child]} if isinstance(child, str) else setup_to_hub(child)
        for child in tree.children
    ]
    values = {"type": type(tree).__name__, "children": children}
    options = tree.options()
    if isinstance(tree, Average):
        # The library weighs, and then divides by the number of adapters once more; and it normalises what it reads.
        if abs(sum(tree.weights) * len(tree.children) - 1) > 1e-6:
            raise ModelError(
                f"{tree!r} in AdapterHub's library is divided by the number of adapters once more",
                change="average the adapters themselves into one: cypher adapters average",
            )
        options = {"weights": [weight * len(tree.children) for weight in tree.weights]}
    return {**values, "kwargs": options} if options else values


def setup_from_hub(values: Mapping[str, Any]) -> Tree:
    """The composition of the library's JSON; a stack of one is that adapter.

    Raises:
        ModelError: It is none.
    """
    kind, given, options = values.get("type"), values.get("children"), dict(values.get("kwargs") or {})
    if not isinstance(given, list) or kind not in {*_KINDS, "single"}:
        raise ModelError(f"composition of type {kind!r}", needed=f"one of {', '.join(_KINDS)}, with children")
    if kind == "single":
        return str(given[0])
    children = [setup_from_hub(child) for child in given]
    if kind == "Stack" and len(children) == 1:
        return children[0]
    if kind == "Average":
        weights = options["weights"]
        total = sum(weights) * len(children)
        return Average(*children, weights=[weight / total for weight in weights], normalise_weights=False)
    try:
        return _KINDS[str(kind)](*children, **options)
    except TypeError:
        raise ModelError(f"{kind} with {', '.join(options) or 'no options'}", needed=f"the options of {kind}") from None


def _fusions(tree: Tree) -> Iterator[Fuse]:
    yield from (each for each in compositions_of(tree) if isinstance(each, Fuse))


def _refuse_other_outputs(model: Model, tree: Tree) -> None:
    """The library's own rules differ for some compositions: those would load there and compute something else."""
    if isinstance(tree, str):
        return
    for fuse in _fusions(tree):
        if fuse is not tree and fuse not in tree.children:
            raise _computed_otherwise(fuse, "it loads fusions of the outermost two levels alone")
    parts = {name: _parts(model, name) for name in tree.names()}
    for each in compositions_of(tree):
        if reason := _difference(each, parts, is_inner=each is not tree):
            raise _computed_otherwise(each, reason)
    first = next(tree.names()) if isinstance(tree, Stack) else None
    for name, found in parts.items():
        if name != first and any(isinstance(part, (EmbeddingPlug, OutputPlug)) for part in found):
            raise _computed_otherwise(tree, f"of embeddings and outputs it changes what the first says, not {name!r}")


def _difference(tree: Composition, parts: Mapping[str, list[nn.Module]], *, is_inner: bool) -> str | None:
    """Why the library gives other outputs for one composition, or ``None``."""
    if isinstance(tree, Stack):
        changing = [name for name in tree.names() if any(isinstance(part, Delta) for part in parts[name])]
        if len(changing) > 1:
            return "a second lora reads what the first one adds, which is lost"
    for name in tree.names():
        if isinstance(tree, (Split, Fuse)) and not all(isinstance(part, FusiblePlug) for part in parts[name]):
            return f"{name!r} is none that is added where a sub-layer ends"
        if not isinstance(tree, Stack) and any(isinstance(part, DoraDelta) for part in parts[name]):
            return f"all rows get the magnitudes of one adapter, of {name!r} or another"
        if is_inner and any(isinstance(part, KeyValuePlug) for part in parts[name]):
            return f"rows with fewer keys than others get some of ones, as those of {name!r}"
        is_begun_again = (is_inner and not isinstance(tree, Fuse)) or isinstance(tree, MultiTask)
        if is_begun_again and any(getattr(part, "reads", None) == "normed" for part in parts[name]):
            return f"the norm in front of {name!r} is taken twice"
    return None


def _parts(model: nn.Module, name: str) -> list[nn.Module]:
    return [
        part[name]
        for path, part in model.named_modules()
        if isinstance(part, nn.ModuleDict) and path.rpartition(".")[2] in PLACES and name in part
    ]


def _computed_otherwise(tree: Composition, reason: str) -> ModelError:
    return ModelError(f"AdapterHub's library computes {tree!r} otherwise: {reason}")
