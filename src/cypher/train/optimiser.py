"""AdamW with linear warm-up and decay (Loshchilov and Hutter 2019, arXiv 1711.05101)."""

from __future__ import annotations

import torch
from torch import nn

from cypher.config import TrainConfig
from cypher.parallel.engine import Engine


def build_optimiser(engine: Engine, config: TrainConfig) -> torch.optim.Optimizer:
    """One group each for the model's and the head's parameters, with and without decay; only what is trained.

    Args:
        engine: Its parameters are those of this process.
        config: Rates and decay.
    """
    rates = {"model": config.learning_rate, "head": config.head_learning_rate or config.learning_rate}
    groups: dict[tuple[str, bool, str], list[nn.Parameter]] = {}
    for name, parameter in engine.trained.items():
        # Biases and norms have one dim; pulling them to zero changes the function, not its complexity. The fused
        # update takes parameters that are divided alike.
        mesh = str(getattr(parameter, "device_mesh", ""))
        groups.setdefault((name.split(".", 1)[0], parameter.ndim > 1, mesh), []).append(parameter)
    if not groups:  # a stage of a pipeline may have nothing that is trained; torch wants a group
        groups["model", False, ""] = []
    return engine.optimiser(
        [
            {
                "params": parameters,
                "peak": rates[part],
                "lr": 0.0,
                "weight_decay": config.weight_decay if decays else 0.0,
            }
            for (part, decays, _), parameters in sorted(groups.items(), key=lambda item: item[0])
        ]
    )


def rate_factor(step: int, *, total: int, warmup: float) -> float:
    """Share of the peak rate in ``step`` (counted from 0) of ``total``: up in ``warmup · total`` steps, then down.

    Args:
        step: Counted from 0.
        total: Steps of the whole run.
        warmup: Share of them in which the rate rises.

    Example:
        >>> [round(rate_factor(step, total=10, warmup=0.2), 3) for step in (0, 1, 2, 9)]
        [0.5, 1.0, 1.0, 0.125]
    """
    rising = round(warmup * total)
    if step < rising:
        return (step + 1) / rising
    return (total - step) / max(1, total - rising)


def set_rate(optimiser: torch.optim.Optimizer, factor: float) -> None:
    """Set every group to ``factor`` of its peak."""
    for group in optimiser.param_groups:
        group["lr"] = group["peak"] * factor
