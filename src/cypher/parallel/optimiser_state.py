"""What an optimiser remembers of each parameter, by the parameter's name: the same under every plan."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.distributed.optim import ZeroRedundancyOptimizer

_PREFIX = "optimiser."


def optimiser_tensors(optimiser: torch.optim.Optimizer, parameters: Mapping[str, nn.Parameter]) -> dict[str, Tensor]:
    """What this process's optimiser remembers, as ``optimiser.NAME.MOMENT``; nothing of a parameter never updated.

    Args:
        optimiser: AdamW, or one that divides AdamW's state over copies: then of the parameters that are this copy's.
        parameters: Of this process, by their names in the undivided model.
    """
    names = {id(parameter): name for name, parameter in parameters.items()}
    return {
        f"{_PREFIX}{names[id(parameter)]}.{moment}": value
        for parameter, moments in _own(optimiser).state.items()
        for moment, value in moments.items()
    }


def fresh_optimiser_tensors(
    optimiser: torch.optim.Optimizer, parameters: Mapping[str, nn.Parameter], shapes: Mapping[str, torch.Size]
) -> dict[str, Tensor]:
    """Room for what a checkpoint remembers of the parameters that this process's optimiser updates.

    Args:
        optimiser: Without memory yet; gets the tensors, whose content is still to be read.
        parameters: Of this process, by their names in the undivided model.
        shapes: Of everything in the checkpoint.

    Returns:
        The tensors, by their names in the checkpoint.
    """
    own = _own(optimiser)
    updated = {id(parameter) for group in own.param_groups for parameter in group["params"]}
    tensors: dict[str, Tensor] = {}
    for key, shape in shapes.items():
        name, _, moment = key.removeprefix(_PREFIX).rpartition(".")
        parameter = parameters.get(name)
        if not key.startswith(_PREFIX) or parameter is None or id(parameter) not in updated:
            continue
        # Moments are divided as their parameter is; what is one number, such as the count of updates, is whole.
        tensors[key] = torch.empty_like(parameter.detach()) if shape else torch.empty(())
        own.state[parameter][moment] = tensors[key]
    return tensors


def _own(optimiser: torch.optim.Optimizer) -> torch.optim.Optimizer:
    """The optimiser that updates this process's parameters."""
    return optimiser.optim if isinstance(optimiser, ZeroRedundancyOptimizer) else optimiser
