"""What is drawn at random while a module runs: the same in processes that hold the same, another where they do not."""

from __future__ import annotations

import torch
from torch import Tensor, nn

LARGEST_SEED = 2**48


def draws_at_random(model: nn.Module) -> bool:
    """Whether anything in a model has a dropout."""
    return any(
        (module.p if isinstance(module, nn.Dropout) else getattr(module, "dropout", 0.0)) != 0.0
        for module in model.modules()
        if isinstance(module, nn.Dropout) or isinstance(getattr(module, "dropout", None), float)
    )


def draw_apart(module: nn.Module, place: int) -> None:
    """Let a module draw in each process by itself, as heads and tokens of its own want; behind it all draw alike again.

    Its seed comes from what all have drawn up to then, so that a block that is run again draws the same again.

    Args:
        module: Has a dropout; nothing happens outside of training.
        place: Of this process among those that hold other parts.
    """
    before: list[Tensor] = []

    def part(module: nn.Module, given: object) -> None:
        if module.training:
            seed = int(torch.randint(LARGEST_SEED, ()))
            before.append(torch.get_rng_state())
            torch.default_generator.manual_seed(seed + place)

    def meet(module: nn.Module, given: object, made: object) -> None:
        if before:
            torch.set_rng_state(before.pop())

    module.register_forward_pre_hook(part)
    module.register_forward_hook(meet, always_call=True)
