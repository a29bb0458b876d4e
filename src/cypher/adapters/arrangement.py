"""From a composition to what a model follows: which adapters are at work, and how."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from torch import nn

from cypher.adapters.adapter import PLACES
from cypher.adapters.composition import (
    Average,
    Composition,
    Fuse,
    Parallel,
    Split,
    Tree,
    compositions_of,
    flow_of,
    names_of,
)
from cypher.adapters.fusion import check_fusible, fusion_parameters
from cypher.errors import ConfigError
from cypher.layers.block import Block
from cypher.layers.plugs import EmbeddingPlug, KeyValuePlug, OutputPlug
from cypher.layers.route import Arrangement
from cypher.models.model import Model

# What no composition may hold that averages, or splits tokens, and why.
_WHOLE_ROWS = {
    KeyValuePlug: "puts rows in front of all keys",
    EmbeddingPlug: "changes or extends the whole input",
    OutputPlug: "chooses the tokens it changes by their place in the row",
}


def activate(model: Model, tree: Tree | None, *, skipped_layers: Iterable[int] = (), drop_in_training: int = 0) -> None:
    """Say which of the attached adapters the model goes through, and how.

    Args:
        model: The adapters are attached.
        tree: A name or a composition; ``None`` goes through all that are attached, in the order they were.
        skipped_layers: Blocks, by their number in every segment, whose adapters are left out (AdapterDrop).
        drop_in_training: In each training step the adapters of the first 0 to so many blocks are left out, by a draw.

    Raises:
        ConfigError: A name is not attached, or its method does not work in its composition.

    Example:
        >>> from cypher.adapters.composition import Parallel
        >>> from cypher.adapters.lora import Lora
        >>> from cypher.config import LoraConfig
        >>> from cypher.models.bert import Bert, BertConfig
        >>> model = Bert(BertConfig(vocabulary_size=9, width=8, n_layers=1, n_heads=2, inner_width=16))
        >>> for name in ("first", "second"):
        ...     Lora(LoraConfig(rank=2)).attach(model, name)
        >>> activate(model, Parallel("first", "second"))
        >>> model.arrangement.copies
        2
    """
    if tree is None:
        model.arrangement = None
        return
    attached = attached_names(model)
    for name in names_of(tree):
        if name not in attached:
            near = difflib.get_close_matches(name, attached, n=1)
            raise ConfigError(
                f"adapter {name!r} is not attached",
                needed=f"one of {', '.join(attached) or 'none yet'}",
                change=f"did you mean {near[0]}?" if near else None,
            )
    for composition in compositions_of(tree):
        _check(model, composition)
    flow = flow_of(tree)
    begins = {}
    if any(flow.concerns(site.plugs) for site in model.embedding_sites):
        begins["embedding"] = ""
    for name, block in model.blocks():
        for part in Block.PARTS:
            module = getattr(block, part)
            if module is not None and flow.concerns(_attached_in(module)):
                begins.setdefault(name, part)
    model.arrangement = Arrangement(
        flow=flow,
        copies=max([len(each.children) for each in compositions_of(tree) if isinstance(each, Parallel)], default=1),
        begins=begins,
        skipped=frozenset(name for name, _ in model.blocks() if int(name.rpartition(".")[2]) in set(skipped_layers)),
        drop_in_training=drop_in_training,
    )


def attached_names(model: nn.Module) -> list[str]:
    """All adapters that have a part in ``model``, in order."""
    return sorted(_attached_in(model))


def _attached_in(module: nn.Module) -> set[str]:
    return {
        name
        for path, part in module.named_modules()
        if isinstance(part, nn.ModuleDict) and path.rpartition(".")[2] in PLACES
        for name in part
    }


def _check(model: Model, composition: Composition) -> None:
    if isinstance(composition, Fuse):
        check_fusible(model, composition)
        if not fusion_parameters(model, composition):
            raise ConfigError(f"{composition!r} has no weights", change="make them with add_fusion, or load them")
    if isinstance(composition, (Average, Split)):
        for name in composition.names():
            _refuse_whole_rows(model, composition, name)


def _parts(model: Model, name: str) -> list[nn.Module]:
    return [part[name] for part in model.modules() if isinstance(part, nn.ModuleDict) and name in part]


def _refuse_whole_rows(model: Model, composition: Composition, name: str) -> None:
    for part in _parts(model, name):
        for kind, reason in _WHOLE_ROWS.items():
            if isinstance(part, kind) and not (kind is OutputPlug and isinstance(composition, Average)):
                raise ConfigError(f"{name!r} in {type(composition).__name__}", needed=f"another method: it {reason}")
