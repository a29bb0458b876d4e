"""From what a model says about its parts to what each process holds of each parameter, and what cannot be divided.

Nothing here needs other processes, or weights: models on the meta device do.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import cast

from torch import Tensor, nn

from cypher.adapters.gate import Gate
from cypher.config import ParallelPlan
from cypher.errors import ConfigError
from cypher.layers.block import Block
from cypher.layers.divisible import Divisible, Division
from cypher.layers.flows import ByTokens
from cypher.layers.linear import Delta, Linear
from cypher.layers.penalty import Penalised
from cypher.layers.route import Flow
from cypher.layers.sites import JoinSite, OutputSite
from cypher.models.headed import HeadedModel
from cypher.models.model import Model
from cypher.parallel.exchange import share_of


@dataclass(frozen=True, kw_only=True)
class Cut:
    """What each process holds of one parameter.

    Args:
        dim: Along which it is cut; ``None`` where everyone holds all of it.
        is_partial: Whether a process that holds all of it works out only a summand of its gradient.
    """

    dim: int | None = None
    is_partial: bool = False


def cuts_of(headed: HeadedModel, *, sequence_parallel: bool = False) -> dict[str, Cut]:
    """What each process holds of each parameter, by its name; :func:`check_tensor` comes first.

    Args:
        headed: The undivided model and its head, which everyone holds whole.
        sequence_parallel: Whether joins work on a share of the tokens.
    """
    model = headed.model
    cuts = {name: Cut() for name, _ in headed.named_parameters(remove_duplicate=False)}

    def mark(prefix: str, cut: Cut) -> None:
        cuts.update({name: cut for name in cuts if name == prefix or name.startswith(f"{prefix}.")})

    if sequence_parallel:
        for name, is_partial in _parts_of_streams(model):
            mark(f"model.{name}", Cut(is_partial=is_partial))
    for name in regions_of(model):
        mark(f"model.{name}", Cut(is_partial=True))
    for name, division in model.tensor_plan().items():
        part = _part(model, name)
        if isinstance(part, Linear):
            for path, dim in dims_of(part, division).items():
                mark(f"model.{name}.{path}", Cut(dim=dim))
        elif division == "vocabulary":
            mark(f"model.{name}", Cut(dim=0))
    return cuts


def dims_of(layer: Linear, division: Division) -> dict[str, int]:
    """Dim along which each parameter of a layer and of its deltas is cut, by its path; everyone holds all of others.

    Args:
        layer: Undivided.
        division: Of the layer.
    """
    if division == "replicate":
        return {}
    is_row = division == "row"
    dims = {"weight": 1} if is_row else {"weight": 0, "bias": 0}
    for path, delta in layer.deltas.named_modules(prefix="deltas"):
        if isinstance(delta, Delta):
            own = delta.input_dims if is_row else delta.output_dims
            assert own is not None, "check_tensor comes first"
            dims.update({f"{path}.{name}": dim for name, dim in own.items()})
    return dims


def regions_of(model: Model) -> dict[str, nn.Module]:
    """Bricks inside of which each process has a part of the features, and layers over the vocabulary, by name."""
    plan = model.tensor_plan()
    found = {}
    for name, module in model.named_modules():
        makes_summands = isinstance(module, Divisible) and "column" in module.divisions.values()
        if makes_summands or (plan.get(name) == "vocabulary" and isinstance(module, Linear)):
            found[name] = module
    return found


def looks_at_places(model: Model, join: JoinSite) -> bool:
    """Whether what is plugged into a join must see all tokens of a row: gates average over them, splits count them.

    Penalties count too: their gradient is whole in every process, and so must be that of the loss beside it.
    """
    if not join.plugs:
        return False
    flow = None if model.arrangement is None else model.arrangement.flow
    return (flow is not None and _splits_tokens(flow)) or any(
        isinstance(module, (Gate, Penalised)) for module in join.modules()
    )


def refusals(model: Model, plan: ParallelPlan) -> list[ConfigError]:
    """Everything that keeps a model from being divided over ``plan.tp`` processes, with the arithmetic.

    Args:
        model: With its adapters; undivided.
        plan: Its ``tp`` and ``sequence_parallel``.

    Example:
        >>> from cypher.models.bert import Bert, BertConfig
        >>> model = Bert(BertConfig(vocabulary_size=100, width=12, n_layers=1, n_heads=4, inner_width=18))
        >>> [str(refusal) for refusal in refusals(model, ParallelPlan(tp=4))]
        ['inner_width = 18 with tp = 4: needs a number that 4 divides']
    """
    if plan.tp == 1:
        return []
    found: dict[str, ConfigError] = {}
    for refusal in _refusals(model, plan.tp):
        found.setdefault(str(refusal), refusal)
    return list(found.values())


def check_tensor(model: Model, plan: ParallelPlan) -> None:
    """Refuse a model that cannot be divided; arguments as in :func:`refusals`.

    Raises:
        ConfigError: The first of them.
    """
    for refusal in refusals(model, plan):
        raise refusal


def _refusals(model: Model, tp: int) -> Iterator[ConfigError]:
    rules = model.tensor_plan()
    for module in model.modules():
        if isinstance(module, Divisible):
            for name, number in module.evenly().items():
                if number % tp:
                    yield ConfigError(f"{name} = {number} with tp = {tp}", needed=f"a number that {tp} divides")
    for name, _ in model.named_parameters():
        if not _is_named(name, rules):
            yield ConfigError(
                f"parameter {name} with tp = {tp}",
                needed=f"a rule: {type(model).__name__}.tensor_plan() does not say how it is divided",
            )
    for name, division in rules.items():
        part = _part(model, name)
        if division in ("column", "row"):
            assert isinstance(part, Linear), f"{name} is divided by {division}, and is no Linear"
        table = part.weight if isinstance(part, (Linear, nn.Embedding)) else part
        if division == "vocabulary" and isinstance(table, Tensor) and not share_of(len(table), tp, tp - 1)[1]:
            yield ConfigError(
                f"a vocabulary of {len(table)} with tp = {tp}",
                needed=f"tokens for each: parts of {-(-len(table) // tp)} leave none for the last",
            )
    for region in regions_of(model).values():
        for part in region.modules():
            if isinstance(part, Delta) and (part.input_dims is None or part.output_dims is None):
                yield ConfigError(
                    f"a {type(part).__name__} with tp = {tp}",
                    needed="input_dims and output_dims, which say how its parameters are divided",
                )
            if isinstance(part, Penalised):
                yield ConfigError(
                    f"a {type(part).__name__} with tp = {tp}",
                    needed="no penalty on parameters inside of divided layers: each process has a part of them",
                )


def _is_named(parameter: str, rules: Mapping[str, Division]) -> bool:
    """Whether a rule names it, or something that it lies under."""
    name = parameter
    while name:
        if name in rules:
            return True
        name = name.rpartition(".")[0]
    return False


def _part(model: Model, name: str) -> nn.Module | Tensor | None:
    """What a rule names; ``None`` where the model, or this stretch of it, does not have it."""
    path, _, last = name.rpartition(".")
    try:
        return cast("nn.Module | Tensor | None", getattr(model.get_submodule(path), last))
    except AttributeError:
        return None


def _parts_of_streams(model: Model) -> Iterator[tuple[str, bool]]:
    """Parts that work on shares of the tokens, and whether their gradients are summands; the inner ones later."""
    for name, module in model.named_modules():
        if isinstance(module, Block):
            yield name, True
        elif isinstance(module, OutputSite):
            yield name, False
        elif isinstance(module, JoinSite) and looks_at_places(model, module):
            yield name, False
            # Blocks that norm what they read do so outside of the join, which puts the tokens together.
            yield f"{name}.norm", module.style == "pre"


def _splits_tokens(flow: Flow) -> bool:
    return isinstance(flow, ByTokens) or any(_splits_tokens(child) for child in getattr(flow, "children", ()))
