"""Averaging adapters of one configuration into a new one: their parameters, or the updates that LoRA makes of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, get_args

import torch
from torch import Tensor

from cypher.adapters.adapter import Adapter
from cypher.adapters.folder import without_text
from cypher.adapters.methods import adapter_of
from cypher.adapters.vera import frozen_projections
from cypher.config import AdapterConfig, LoraConfig
from cypher.errors import ConfigError
from cypher.models.model import Model

AverageStrategy = Literal["linear", "lora_linear_only_negate_b", "lora_delta_w_svd"]

# They say how training starts or what it leaves out, not what the parameters mean.
_OF_TRAINING = {"dropout", "init", "init_range", "token_ids", "text", "down_scale"}


def average_adapters(
    model: Model,
    into: str,
    configs: Mapping[str, AdapterConfig],
    *,
    weights: Sequence[float] | None = None,
    strategy: AverageStrategy = "linear",
    rank: int | None = None,
    normalise_weights: bool = True,
) -> AdapterConfig:
    """Attach the average of several attached adapters.

    Args:
        model: Holds them.
        into: Name of the new one.
        configs: Of those that are averaged, by their names.
        weights: One each; a negative one takes an adapter away. ``None`` weighs all the same.
        strategy: ``linear`` averages all parameters. ``lora_linear_only_negate_b`` gives a negative weight to LoRA's
            second matrix alone, so that two minuses do not cancel (Zhang et al. 2023, arXiv 2306.14870, section 4).
            ``lora_delta_w_svd`` averages LoRA's updates and splits the average again, as well as ``rank`` allows
            (singular value decomposition).
        rank: Of the new LoRA, for ``lora_delta_w_svd``.
        normalise_weights: Whether the weights are divided by their sum.

    Returns:
        The configuration of the new adapter.

    Raises:
        ConfigError: The adapters have different configurations, the strategy is none of their method, or a name is
            taken; nothing is attached then.

    Example:
        >>> from cypher.adapters.lora import Lora
        >>> from cypher.models.bert import Bert, BertConfig
        >>> model = Bert(BertConfig(vocabulary_size=9, width=8, n_layers=1, n_heads=2, inner_width=16))
        >>> for name in ("first", "second"):
        ...     Lora(LoraConfig(rank=2)).attach(model, name)
        >>> average_adapters(model, "mean", {"first": LoraConfig(rank=2), "second": LoraConfig(rank=2)}).method
        'lora'
    """
    shares = _shares(list(configs), weights, normalise_weights)
    config = _common(configs)
    if strategy not in get_args(AverageStrategy):
        raise ConfigError(f"strategy {strategy!r}", needed=f"one of {', '.join(get_args(AverageStrategy))}")
    if strategy != "linear" and (not isinstance(config, LoraConfig) or config.gated):
        raise ConfigError(f"strategy {strategy} on {config.method}", needed="lora without a gate", change="use linear")
    if (strategy == "lora_delta_w_svd") != (rank is not None):
        raise ConfigError(
            f"rank = {rank} with strategy {strategy}", needed="a rank for lora_delta_w_svd, and only there"
        )
    values = {name: Adapter.parameters_of(model, name) for name in configs}
    if rank is not None:
        assert isinstance(config, LoraConfig), "checked above"
        # The update is scaled by alpha / rank: as before, so that it is the average.
        config = config.model_copy(update={"rank": rank, "alpha": config.alpha * rank / config.rank})
    frozen = _same_projections(model, list(configs))
    with torch.no_grad():
        made = _updates(values, shares, rank) if rank is not None else _parameters(values, shares, strategy)
        adapter_of(config).attach(model, into)
        for path, parameter in Adapter.parameters_of(model, into).items():
            parameter.copy_(made[_apart(path, into)])
        for new, old in zip(frozen_projections(model, into), frozen, strict=True):
            new.copy_(old)
    return config


def _shares(names: list[str], weights: Sequence[float] | None, normalise: bool) -> dict[str, float]:
    if not names:
        raise ConfigError("an average of no adapters", needed="at least one")
    if weights is None:
        return dict.fromkeys(names, 1 / len(names))
    if len(weights) != len(names):
        raise ConfigError(f"{len(names)} adapters with {len(weights)} weights", needed="one weight each")
    total = sum(weights) if normalise else 1.0
    if not total:
        raise ConfigError(f"weights {list(weights)}", needed="a sum that is not 0", change="do not normalise them")
    return {name: weight / total for name, weight in zip(names, weights, strict=True)}


def _common(configs: Mapping[str, AdapterConfig]) -> AdapterConfig:
    (name, first), *others = configs.items()
    for other, config in others:
        different = _difference(first.model_dump(mode="json"), config.model_dump(mode="json"))
        if different is not None:
            raise ConfigError(
                f"{name!r} and {other!r} differ in {different}",
                needed="adapters of one configuration: their parameters mean different things",
            )
    return without_text(first)


def _difference(first: object, other: object, where: str = "method") -> str | None:
    """The first key that two configurations differ in, or ``None``."""
    if isinstance(first, dict) and isinstance(other, dict):
        if first.get("method") != other.get("method"):
            return "method"
        keys = [key for key in first if key not in _OF_TRAINING]
        return next((found for key in keys if (found := _difference(first[key], other.get(key), key))), None)
    if isinstance(first, list) and isinstance(other, list) and len(first) == len(other):
        pairs = zip(first, other, strict=True)
        return next((found for one, two in pairs if (found := _difference(one, two, where))), None)
    return None if first == other else where


def _parameters(
    values: Mapping[str, Mapping[str, Tensor]], shares: Mapping[str, float], strategy: AverageStrategy
) -> dict[str, Tensor]:
    made: dict[str, Tensor] = {}
    for name, share in shares.items():
        for path, value in values[name].items():
            keeps_sign = strategy == "lora_linear_only_negate_b" and path.endswith(".down")
            weighed = value * (abs(share) if keeps_sign else share)
            apart = _apart(path, name)
            made[apart] = made[apart] + weighed if apart in made else weighed
    return made


def _updates(values: Mapping[str, Mapping[str, Tensor]], shares: Mapping[str, float], rank: int) -> dict[str, Tensor]:
    made: dict[str, Tensor] = {}
    first = next(iter(values))
    for path in values[first]:
        if not path.endswith(".up"):
            continue
        layer = path.removesuffix(".up")
        update = torch.zeros(())
        for name, share in shares.items():
            own = layer.removesuffix(f".{first}") + f".{name}"
            update = update + share * (values[name][f"{own}.up"].float() @ values[name][f"{own}.down"].float())
        if rank > min(update.shape):
            raise ConfigError(f"rank = {rank}", needed=f"at most {min(update.shape)}, the smaller side of {layer}")
        left, scales, right = torch.linalg.svd(update, full_matrices=False)
        made[_apart(f"{layer}.up", first)] = left[:, :rank] * scales[:rank]
        made[_apart(f"{layer}.down", first)] = right[:rank]
    return made


def _same_projections(model: Model, names: list[str]) -> list[Tensor]:
    """VeRA's random matrices, which its vectors only mean something together with."""
    first = frozen_projections(model, names[0])
    for name in names[1:]:
        if not all(map(torch.equal, first, frozen_projections(model, name))):
            raise ConfigError(
                f"{names[0]!r} and {name!r} scale different random matrices", needed="adapters of one seed"
            )
    return first


def _apart(path: str, name: str) -> str:
    """A parameter's path without its adapter's name."""
    for place in ("plugs", "deltas"):
        path = path.replace(f".{place}.{name}.", f".{place}..", 1)
    return path
