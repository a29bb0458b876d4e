"""Whole set-ups in AdapterHub's format: one sub-folder an adapter, ``a,b`` for a fusion, and ``adapter_setup.json``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from torch import nn

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
from cypher.adapters.folder import read_json
from cypher.adapters.hub_folder import (
    FORMAT,
    HubModel,
    hub_fusion_name,
    load_hub_adapter,
    load_hub_fusion,
    save_hub_adapter,
    save_hub_fusion,
    write_hub_json,
)
from cypher.config import AdapterConfig
from cypher.errors import ConfigError, ModelError
from cypher.layers.linear import Linear
from cypher.layers.plugs import FusiblePlug
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
    for name in names_of(tree):
        if name not in configs:
            raise ConfigError(f"no configuration of {name!r}", change="give one for every adapter of the composition")
        save_hub_adapter(folder / name, model, name, config=configs[name], of=of)
    for fuse in _fusions(tree):
        save_hub_fusion(folder / hub_fusion_name(fuse), model, fuse, of=of)
    values = setup_to_hub(Stack(tree) if isinstance(tree, str) else tree)
    write_hub_json(folder / SETUP, {"adapter_setup": values, "head_setup": None, "version": FORMAT})


def load_hub_setup(folder: Path, model: Model) -> tuple[Tree, dict[str, AdapterConfig]]:
    """Attach all adapters of a set-up, load its fusions, and say how they are composed.

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
    for each in compositions_of(tree):
        if isinstance(each, Stack):
            changing = [name for child in each.children for name in names_of(child) if _has_deltas(model, name)]
            if len(changing) > 1:
                raise _computed_otherwise(each, "a second lora reads what the first one adds, which is lost")
        is_inner = each is not tree and not isinstance(each, Fuse)
        if is_inner or isinstance(each, MultiTask):
            for name in each.names():
                if _reads_normed(model, name):
                    raise _computed_otherwise(each, f"the norm in front of {name!r} is taken twice")


def _has_deltas(model: nn.Module, name: str) -> bool:
    return any(isinstance(layer, Linear) and name in layer.deltas for layer in model.modules())


def _reads_normed(model: nn.Module, name: str) -> bool:
    return any(isinstance(part, nn.ModuleDict) and name in part and _is_normed(part[name]) for part in model.modules())


def _is_normed(plug: nn.Module) -> bool:
    return isinstance(plug, FusiblePlug) and getattr(plug, "reads", None) == "normed"


def _computed_otherwise(tree: Composition, reason: str) -> ModelError:
    return ModelError(f"AdapterHub's library computes {tree!r} otherwise: {reason}")
