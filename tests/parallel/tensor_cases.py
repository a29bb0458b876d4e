"""What runs in each process of the tests of tensor parallelism: one model, divided or not, and what it computes."""

from __future__ import annotations

from typing import Any, NamedTuple, cast

import torch
from token_task import TokenTask, learn, model_of, rows_of
from torch import Tensor
from torch.distributed.tensor import DTensor

from cypher.adapters.adapter import freeze_all_but
from cypher.adapters.arrangement import activate
from cypher.adapters.composition import Fuse, Tree, names_of
from cypher.adapters.fusion import add_fusion
from cypher.adapters.methods import adapter_of
from cypher.config import ParallelPlan, adapter_config
from cypher.data.batch import Inputs
from cypher.decode.greedy import greedy
from cypher.layers.attention import ColumnMeans, FullAttention
from cypher.layers.penalty import penalty_of
from cypher.models.headed import HeadedModel
from cypher.models.model import Model
from cypher.parallel.gather import whole_tensors
from cypher.parallel.parallelise import parallelise
from cypher.parallel.tensor import Divided, divide
from cypher.parallel.world import World, joined


class Found(NamedTuple):
    """Logits, the loss, and gradients put together, by name."""

    logits: Tensor
    loss: float
    gradients: dict[str, Tensor]


def learn_once(text: str, family: str, options: dict[str, Any]) -> Found:
    """Forward and backward of one batch; ``options`` are arguments of :func:`prepared` and :func:`learnt`."""
    options = dict(options)
    how = {key: options.pop(key) for key in ("training", "checkpoints", "frozen_layout") if key in options}
    with joined(ParallelPlan.parse(text)) as world:
        return learnt(prepared(family, **options), world, **how)


def with_adapters(text: str, family: str, adapters: dict[str, dict[str, Any]]) -> dict[str, Found]:
    """The same with one adapter after the other, each on a model of its own."""
    with joined(ParallelPlan.parse(text)) as world:
        return {name: learnt(prepared(family, adapter=adapter), world) for name, adapter in adapters.items()}


def prepared(
    family: str,
    *,
    tied: bool = True,
    adapter: dict[str, Any] | None = None,
    only_adapter: bool = False,
    tree: Tree | None = None,
    dtype: torch.dtype | None = None,
) -> Model:
    """A model with adapters whose parameters are as if they had been trained."""
    model = model_of(family, tied=tied)
    for name in [] if adapter is None else ["mine"] if tree is None else sorted(set(names_of(tree))):
        adapter_of(adapter_config(adapter)).attach(model, name)
    if tree is not None:
        if isinstance(tree, Fuse):
            add_fusion(model, tree)
        activate(model, tree)
    generator = torch.Generator().manual_seed(3)
    for name, parameter in model.named_parameters():
        if any(f".{place}." in name for place in ("deltas", "plugs", "fusions")):
            parameter.data.add_(torch.randn(parameter.shape, generator=generator) * 0.2)
    if only_adapter:
        freeze_all_but(model, "mine")
    if dtype is not None:
        model.prepare_training(dtype)
    return model


def learnt(
    model: Model, world: World, *, training: bool = True, checkpoints: bool = False, frozen_layout: bool = False
) -> Found:
    """Forward and backward of one batch of rows of unequal length."""
    task, headed = TokenTask(), HeadedModel(model, model.language_head()).train(training)
    model.checkpoints_activations = checkpoints
    divided = divided_over(headed, world)
    if frozen_layout:
        model.lay_out_frozen() if divided is None else divided.lay_out_frozen()
        for layer, own_part in () if divided is None else divided.layers:
            with own_part:
                assert layer.frozen is not None
                assert layer.frozen.is_made_of(layer.weight, layer.bias)
    batch = task.collate([(row, index) for index, row in enumerate(rows_of(0))])
    encoded = model(batch.inputs)
    logits = headed.head(encoded)
    copies = len(logits) // len(batch.rows)
    batch = task.collate([(row, index) for index, row in enumerate(rows_of(0) * copies)])
    (share,) = task.losses(headed.head, encoded, batch).values()
    loss = share.total / share.count
    if (penalty := penalty_of(headed)) is not None:
        loss = loss + penalty
    loss.backward()
    if divided is not None:
        divided.settle()
    gradients = {name: p.grad for name, p in headed.named_parameters() if p.grad is not None}
    return Found(logits.detach(), loss.item(), {name: whole(gradient) for name, gradient in gradients.items()})


def divided_over(headed: HeadedModel, world: World) -> Divided | None:
    """The model cut over the processes, if there are several."""
    return divide(headed, world) if world.plan.tp > 1 else None


def whole(tensor: Tensor) -> Tensor:
    """All of a tensor, with memory of its own."""
    return (tensor.full_tensor() if isinstance(tensor, DTensor) else tensor).detach().clone()


def written(text: str, family: str) -> list[list[int]]:
    """What a decoder writes with a state."""
    with joined(ParallelPlan.parse(text)) as world, torch.no_grad():
        model = model_of(family).eval()
        headed = HeadedModel(model, model.language_head())
        divided_over(headed, world)
        inputs = TokenTask().collate([(row, index) for index, row in enumerate(rows_of(1, rows=3))]).inputs
        return greedy(model, inputs, max_new_tokens=5)


def scores(text: str) -> list[Tensor]:
    """How much attention each token received, block by block."""
    with joined(ParallelPlan.parse(text)) as world, torch.no_grad():
        model = model_of("encoder").eval()
        divided_over(HeadedModel(model, model.language_head()), world)
        found: list[Tensor] = []
        for module in model.modules():
            if isinstance(module, ColumnMeans):
                module.register_forward_hook(lambda _module, _given, made: found.append(made))
        inputs: Inputs = TokenTask().collate([(row, index) for index, row in enumerate(rows_of(0))]).inputs
        model(inputs, scores=True)
        return found


def held(text: str, family: str, options: dict[str, Any]) -> dict[str, tuple[int, int]]:
    """Numbers that this process holds of each parameter, and bytes of the memory behind them."""
    with joined(ParallelPlan.parse(text)) as world:
        headed = HeadedModel(model := prepared(family, **options), model.language_head())
        divided_over(headed, world)
        local = {
            name: parameter.to_local() if isinstance(parameter, DTensor) else parameter
            for name, parameter in headed.named_parameters()
        }
        return {name: (part.numel(), part.untyped_storage().nbytes()) for name, part in local.items()}


def kept(text: str, family: str) -> int:
    """Bytes that the forward of one batch keeps for its backward, parameters aside."""
    with joined(ParallelPlan.parse(text)) as world:
        headed = HeadedModel(model := prepared(family), model.language_head()).train()
        divided_over(headed, world)
        own = [p.to_local() if isinstance(p, DTensor) else p for p in headed.parameters()]
        weights = {part.untyped_storage().data_ptr() for part in own}
        found: dict[int, int] = {}

        def keep(tensor: Tensor) -> Tensor:
            if not isinstance(tensor, DTensor) and (place := tensor.untyped_storage().data_ptr()) not in weights:
                found[place] = tensor.untyped_storage().nbytes()
            return tensor

        batch = TokenTask().collate([(row, index) for index, row in enumerate(rows_of(20))])
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            encoded = model(batch.inputs)
        assert encoded.hidden.requires_grad
        return sum(found.values())


def drawn(text: str, dropout: float) -> tuple[Found, list[Tensor]]:
    """With dropout, and all heads alike: what is learnt, and what the first block's heads mixed."""
    with joined(ParallelPlan.parse(text)) as world:
        model = model_of("encoder", dropout=dropout)
        attention = cast(FullAttention, model.get_submodule("segments.encoder.0.attention"))
        for layer in (attention.query, attention.key, attention.value):
            layer.weight.data = layer.weight.data[: attention.head_width].repeat(attention.n_heads, 1)
            layer.bias.data = layer.bias.data[: attention.head_width].repeat(attention.n_heads)
        mixed: list[Tensor] = []
        attention.output.register_forward_pre_hook(lambda _layer, given: mixed.append(given[0].detach()))
        torch.manual_seed(5)
        return learnt(model, world, checkpoints=True), mixed


def trained(text: str, adapter: dict[str, Any], tree: Tree | None) -> tuple[list[float], dict[str, Tensor]]:
    """Losses of some steps that train an adapter beside copies, and its weights after them in the main process."""
    with joined(ParallelPlan.parse(text)) as world:
        model = prepared("encoder", adapter=adapter, tree=tree)
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(any(f".{place}." in name for place in ("deltas", "plugs", "fusions")))
        engine = parallelise(HeadedModel(model, model.language_head()), world)
        return learn(engine, steps=4), whole_tensors(engine.trained, world)
