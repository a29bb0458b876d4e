"""Finding places in any architecture, and putting modules there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, cast

from torch import nn

from cypher.errors import ConfigError
from cypher.layers.block import Block
from cypher.layers.linear import Linear
from cypher.models.model import Model


class NumberedBlock(NamedTuple):
    """A block with the name of its segment and its number in forward order over all segments."""

    segment: str
    number: int
    block: Block


class TargetLinear(NamedTuple):
    """A linear layer of a block with the name its block has for it."""

    name: str
    layer: Linear
    segment: str


def blocks_of(model: Model, *, leave_out: Sequence[int] = ()) -> list[NumberedBlock]:
    """All blocks of ``model`` but those left out.

    Raises:
        ConfigError: A block that is left out does not exist.
    """
    every = [
        (segment, cast(Block, block))
        for segment, blocks in model.segments.items()
        for block in cast(nn.ModuleDict, blocks).values()
    ]
    if wrong := [number for number in leave_out if not 0 <= number < len(every)]:
        raise ConfigError(f"adapter.leave_out has {wrong[0]}", needed=f"a block from 0 to {len(every) - 1}")
    return [
        NumberedBlock(segment, number, block)
        for number, (segment, block) in enumerate(every)
        if number not in leave_out
    ]


def linears_of(model: Model, names: Sequence[str], *, leave_out: Sequence[int] = ()) -> list[TargetLinear]:
    """Linear layers of the blocks that are called one of ``names``; those of attached modules do not count.

    Raises:
        ConfigError: There is none, or a block that is left out does not exist.
    """
    found = [
        TargetLinear(name, layer, segment)
        for segment, _, block in blocks_of(model, leave_out=leave_out)
        for path, layer in block.named_modules()
        if isinstance(layer, Linear) and not {"plugs", "deltas"} & set(path.split("."))
        for name in [path.rsplit(".", 1)[-1]]
        if name in names
    ]
    if not found:
        raise ConfigError(f"adapter.targets = {list(names)}", needed="a layer of this model")
    return found


def plug_in(model: Model, name: str, modules: Sequence[tuple[nn.ModuleDict, nn.Module]]) -> None:
    """Put each module into its dictionary under ``name``, all of them or none.

    Raises:
        ConfigError: The name is no name, or it is taken in one of the places.
    """
    check_name(name)
    if any(name in place for place, _ in modules):
        raise ConfigError(f"an adapter named {name!r} is attached already", change="choose another name")
    for place, module in modules:
        place[name] = module.to(model.token_vectors().device).train(model.training)


def check_name(name: str) -> None:
    """Refuse a name that cannot be part of a parameter's path.

    Raises:
        ConfigError: It is empty, has a dot, or is a word that torch's modules use themselves.
    """
    if not name or "." in name or hasattr(nn.ModuleDict(), name):
        raise ConfigError(
            f"adapter name {name!r}",
            needed="a name without dots that is no attribute of a torch module (train, half, type, …)",
            change="choose another name",
        )
