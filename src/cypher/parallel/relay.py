"""A pipeline's model used whole: every process runs the same program, and whoever has a part sends what it makes.

This is the naive, vertical model parallelism of the introductions: one process works at a time. Training goes through
schedules; predictions, which may ask for anything, even text token by token, go through here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from cypher.layers.block import BlockOutput
from cypher.parallel.world import World

_DTYPES = (
    torch.float32,
    torch.bfloat16,
    torch.float16,
    torch.float64,
    torch.int64,
    torch.int32,
    torch.int8,
    torch.bool,
)
_MOST_DIMS = 6


class Absent(nn.Module):
    """Stands where another process has a block or a part; hidden states pass, and are replaced behind it."""

    def forward(self, hidden: Tensor, *rest: Any) -> BlockOutput:
        """What comes in."""
        return BlockOutput(hidden=hidden)


@dataclass(frozen=True, kw_only=True)
class Relayed:
    """A module whose output one process makes for all.

    Args:
        owner: Place on the ``pp`` axis.
        kind: ``block`` (hidden states), ``site`` (hidden states and a mask) or ``tensor``.
    """

    owner: int
    kind: str


@contextmanager
def relaying(root: nn.Module, relayed: Mapping[str, Relayed], world: World) -> Iterator[None]:
    """Within it the model behaves as the whole one, in all processes of a pipeline at once.

    Args:
        root: Of which this process has some modules.
        relayed: By name in ``root``; each is called equally often, in the same order, by every process.
        world: Of this process.
    """
    own, group = world.place("pp"), world.group("pp")
    changed: list[nn.Module] = []

    def sends(forward: Callable[..., Any]) -> Callable[..., Any]:
        def run(*values: Any, **named: Any) -> Any:
            output = forward(*values, **named)
            _send(_tensors(output), own, group)
            return output

        return run

    def receives(how: Relayed) -> Callable[..., Any]:
        def run(*values: Any, **named: Any) -> Any:
            tensors = _receive(how.owner, group)
            if how.kind == "block":
                return BlockOutput(hidden=tensors[0])
            return tuple(tensors) if how.kind == "site" else tensors[0]

        return run

    try:
        for name, how in relayed.items():
            module = root.get_submodule(name)
            # For an instance, what is called comes before what its class says.
            module.forward = sends(module.forward) if how.owner == own else receives(how)
            changed.append(module)
        yield
    finally:
        for module in changed:
            del module.forward


def _tensors(output: Any) -> Sequence[Tensor]:
    if isinstance(output, BlockOutput):
        return (output.hidden,)
    return (output,) if isinstance(output, Tensor) else tuple(output)


def _send(tensors: Sequence[Tensor], owner: int, group: dist.ProcessGroup) -> None:
    head = torch.zeros(1 + len(tensors) * (_MOST_DIMS + 2), dtype=torch.int64)
    shapes = [(_DTYPES.index(tensor.dtype), tensor.ndim, *tensor.shape) for tensor in tensors]
    flat = [number for shape in shapes for number in (*shape, *[0] * (_MOST_DIMS + 2 - len(shape)))]
    head[0], head[1:] = len(tensors), torch.tensor(flat)
    dist.broadcast(head[:1].clone(), group_src=owner, group=group)
    dist.broadcast(head, group_src=owner, group=group)
    for tensor in tensors:
        dist.broadcast(_wire(tensor.detach()), group_src=owner, group=group)


def _receive(owner: int, group: dist.ProcessGroup) -> list[Tensor]:
    count = torch.zeros(1, dtype=torch.int64)
    dist.broadcast(count, group_src=owner, group=group)
    head = torch.zeros(1 + int(count) * (_MOST_DIMS + 2), dtype=torch.int64)
    dist.broadcast(head, group_src=owner, group=group)
    received = []
    for dtype, dims, *shape in head[1:].view(int(count), -1).tolist():
        tensor = torch.empty(shape[:dims], dtype=_DTYPES[dtype])
        wire = _wire(tensor)
        dist.broadcast(wire, group_src=owner, group=group)
        received.append(wire.to(_DTYPES[dtype]))
    return received


def _wire(tensor: Tensor) -> Tensor:
    """As it travels: truth values as bytes, everything without gaps."""
    return (tensor.to(torch.uint8) if tensor.dtype == torch.bool else tensor).contiguous()
