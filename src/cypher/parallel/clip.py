"""The one clip: a global L2 norm whatever is divided over whom."""

from __future__ import annotations

from collections.abc import Collection, Iterable

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Placement
from torch.nn.utils import get_total_norm

from cypher.parallel.world import World


@torch.no_grad()
def clip(
    parameters: Iterable[nn.Parameter],
    max_norm: float,
    *,
    world: World,
    counted_elsewhere: Collection[nn.Parameter] = (),
) -> float:
    """Scale all gradients by one factor, so that their norm over all processes is at most ``max_norm``.

    ``torch.nn.utils.clip_grad_norm_`` refuses plain and divided tensors side by side and, in a pipeline, takes the norm
    of one stage for the whole.

    Args:
        parameters: Of this process; divided ones are DTensors on any meshes, others are the same in every process of
            an axis but ``pp``.
        max_norm: Largest norm; 0 only measures.
        world: Stages add up over its ``pp``.
        counted_elsewhere: Parameters that another stage holds as well and counts.

    Returns:
        The norm before.
    """
    others = {id(parameter) for parameter in counted_elsewhere}
    gradients, counted = [], []
    for parameter in parameters:
        if parameter.grad is not None:
            gradients.append(parameter.grad)
            if id(parameter) not in others:
                counted.append(parameter.grad)
    square = torch.zeros((), dtype=torch.float64)
    for divided, alike in _by_mesh(counted).items():
        own = get_total_norm([_local(gradient) for gradient in alike]).double() ** 2
        if divided is not None:
            mesh, placements = divided
            for dim, placement in enumerate(placements):
                if not placement.is_replicate():
                    dist.all_reduce(own, group=mesh.get_group(dim))
        square += own
    (total,) = world.total([square.item()], over=("pp",) if world.plan.pp > 1 else ())
    norm_before = float(total**0.5)
    # A stage may have nothing that is trained.
    if gradients and max_norm and norm_before > max_norm:
        factor = max_norm / (norm_before + 1e-6)
        torch._foreach_mul_([_local(gradient) for gradient in gradients], factor)
    return norm_before


def settle(parameters: Iterable[nn.Parameter]) -> None:
    """Bring each gradient to the placements of its parameter.

    The gradient of a vocabulary-parallel table, for one, comes whole: held so, every process would update, and keep
    moments for, all of it.

    Args:
        parameters: Of this process.
    """
    for parameter in parameters:
        gradient, own = parameter.grad, parameter.data
        if not isinstance(gradient, DTensor) or not isinstance(own, DTensor):
            continue
        if gradient.placements != own.placements:
            parameter.grad = gradient.redistribute(placements=own.placements)


def _by_mesh(
    gradients: Iterable[Tensor],
) -> dict[tuple[DeviceMesh, tuple[Placement, ...]] | None, list[Tensor]]:
    """Gradients by how they are divided; ``None``: not at all."""
    groups: dict[tuple[DeviceMesh, tuple[Placement, ...]] | None, list[Tensor]] = {}
    for gradient in gradients:
        divided = (gradient.device_mesh, gradient.placements) if isinstance(gradient, DTensor) else None
        groups.setdefault(divided, []).append(gradient)
    return groups


def _local(gradient: Tensor) -> Tensor:
    return gradient.to_local() if isinstance(gradient, DTensor) else gradient
