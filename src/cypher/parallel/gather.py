"""Whole tensors from divided ones, and back: for the files that one process reads."""

from __future__ import annotations

import logging
from collections.abc import Mapping

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

from cypher.parallel.world import World

# It says each time that two exchanges are slower than one, which a file now and then does not mind.
logging.getLogger("torch.distributed.tensor._redistribute").setLevel(logging.ERROR)


@torch.no_grad()
def whole_tensors(tensors: Mapping[str, Tensor], world: World) -> dict[str, Tensor]:
    """Put every tensor together in the main process; all processes must call it.

    Args:
        tensors: Of this process by the names of the undivided model; those on several stages are taken from the first.
        world: All processes.

    Returns:
        In the main process all of them, copies of their own; elsewhere nothing.
    """
    own = {}
    is_first = world.place("replicate") == world.place("shard") == world.place("tp") == 0
    for name, tensor in tensors.items():
        value = tensor.detach()
        whole = value.full_tensor() if isinstance(value, DTensor) else value
        if is_first:
            own[name] = whole.clone()
    # A stage with no tensors takes part: the others wait for it.
    return _from_stages(own, world) if world.plan.pp > 1 and is_first else own


def _from_stages(own: dict[str, Tensor], world: World) -> dict[str, Tensor]:
    """One stage after the other sends what those before it have not."""
    group, stage = world.group("pp"), world.place("pp")
    offered: list[dict[str, tuple[torch.Size, torch.dtype]]] = [{} for _ in range(world.plan.pp)]
    dist.all_gather_object(offered, {name: (value.shape, value.dtype) for name, value in own.items()}, group=group)
    joined = dict(own) if stage == 0 else {}
    have = set(offered[0])
    for sender in range(1, world.plan.pp):
        for name, (shape, dtype) in offered[sender].items():
            if name in have:
                continue
            have.add(name)
            if stage == sender:
                dist.send(own[name].contiguous(), group=group, group_dst=0)
            elif stage == 0:
                joined[name] = torch.empty(shape, dtype=dtype)
                dist.recv(joined[name], group=group, group_src=sender)
    return joined


@torch.no_grad()
def fill(tensors: Mapping[str, Tensor], whole: Mapping[str, Tensor]) -> None:
    """Copy whole tensors into this process's parts; nothing is sent.

    Args:
        tensors: Of this process; overwritten.
        whole: At least these names, with the shapes of the undivided model.
    """
    for name, tensor in tensors.items():
        value = tensor.detach()
        if not isinstance(value, DTensor):
            value.copy_(whole[name])
            continue
        local = value.to_local()
        shape, offset = compute_local_shape_and_global_offset(value.shape, value.device_mesh, value.placements)
        part = whole[name]
        for dim, (start, size) in enumerate(zip(offset, shape, strict=True)):
            part = part.narrow(dim, start if size else 0, size)
        local.copy_(part)
