"""Tensor parallelism: every matrix cut over the processes of a group (Shoeybi et al. 2019, arXiv 1909.08053).

For one process nothing changes. Over several, attention and feed-forward are given the same hidden states everywhere;
each process works with its heads, or its share of the middle, and what they make is summed. Between them the hidden
states are the same in every process or, with ``sequence_parallel``, everyone has a share of the tokens (Korthikanti et
al. 2022, arXiv 2205.05198, section 4.2). The token table is cut by tokens (section 3 of the former).

Parameters are DTensors, so that copies, checkpoints and optimisers know what is whose. While a layer runs it sees its
own part as a plain tensor: layers, and all that is attached to them, compute as if there were no others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import cast

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Shard

from cypher.layers.attention import FullAttention
from cypher.layers.linear import Linear
from cypher.layers.plugs import KeyValuePlug
from cypher.layers.sites import JoinSite, OutputSite
from cypher.layers.vocabulary_logits import VocabularyLogits
from cypher.models.headed import HeadedModel
from cypher.models.model import Model
from cypher.parallel.exchange import Peers, share_of
from cypher.parallel.own_draws import draw_apart, draws_at_random
from cypher.parallel.tensor_layers import OwnPart, Place, divide_linear, divide_logits, divide_output, divide_table
from cypher.parallel.tensor_plan import Cut, check_tensor, cuts_of, dims_of, looks_at_places, regions_of
from cypher.parallel.tensor_stream import SameEverywhere, ShareOfTokens, Stream
from cypher.parallel.world import World


@dataclass(frozen=True, kw_only=True)
class Divided:
    """A model whose matrices are cut.

    Args:
        headed: The model and its head; runs in all processes of the group at the same time.
        partial: Parameters that everyone holds whole and works out a summand of the gradient of, by name.
        layers: Divided linear layers, and how each sees its own part.
        peers: The processes.
    """

    headed: HeadedModel
    partial: dict[str, Place]
    layers: tuple[tuple[Linear, OwnPart], ...]
    peers: Peers

    @torch.no_grad()
    def settle(self) -> None:
        """Sum the gradients of ``partial`` over the processes; once a step, before the clip."""
        gradients = []
        for module, name in self.partial.values():
            gradient = getattr(module, name).grad
            if gradient is not None:
                gradients.append(gradient.to_local() if isinstance(gradient, DTensor) else gradient)
        for dtype in dict.fromkeys(gradient.dtype for gradient in gradients):
            alike = [gradient for gradient in gradients if gradient.dtype == dtype]
            flat = torch.cat([gradient.flatten() for gradient in alike])
            dist.all_reduce(flat, group=self.peers.group)
            for gradient, total in zip(alike, torch.split(flat, [part.numel() for part in alike]), strict=True):
                gradient.copy_(total.view_as(gradient))

    def lay_out_frozen(self) -> None:
        """As :meth:`cypher.models.model.Model.lay_out_frozen`, of this process's parts."""
        self.headed.model.lay_out_frozen()
        for layer, own_part in self.layers:
            with own_part:
                layer.freeze()


def divide(headed: HeadedModel, world: World, stretches: Sequence[range] | None = None) -> Divided:
    """Cut a model over the ``tp`` processes of a run, in place.

    Args:
        headed: With its weights, adapters and what is frozen; the same in every process of the group.
        world: Its plan says whether joins work on shares of the tokens.
        stretches: Places in :meth:`Model.blocks` of those that follow each other in this process; what comes into and
            out of a stretch has all tokens. ``None`` is one of all blocks.

    Raises:
        ConfigError: The model cannot be divided; with the arithmetic.
    """
    plan, model = world.plan, headed.model
    check_tensor(model, plan)
    assert world.mesh is not None, "one process divides nothing"
    mesh = world.mesh["tp"]
    peers = Peers(group=world.group("tp"), place=world.place("tp"), count=plan.tp)
    cuts = cuts_of(headed, sequence_parallel=plan.sequence_parallel)
    regions, rules = regions_of(model), model.tensor_plan()
    layers: list[tuple[Linear, OwnPart]] = []
    for name, module in model.named_modules():
        division = rules.get(name, "replicate")
        if isinstance(module, Linear) and division != "replicate":
            layers.append((module, divide_linear(module, dims_of(module, division), peers, is_row=division == "row")))
        if division == "vocabulary" and isinstance(module, Linear):
            divide_output(module, peers)
        elif division == "vocabulary" and isinstance(module, nn.Embedding):
            divide_table(module, peers)
        elif isinstance(module, VocabularyLogits):
            divide_logits(module, peers)
    for module in regions.values():
        if isinstance(module, FullAttention):
            _divide_heads(module, peers)
    stream: Stream
    if plan.sequence_parallel:
        stream = ShareOfTokens(peers)
        blocks = [name for name, _ in model.blocks()]
        _share_tokens(
            model, stream, [blocks] if stretches is None else [blocks[one.start : one.stop] for one in stretches]
        )
    else:
        stream = SameEverywhere(peers)
    for module in regions.values():
        if not isinstance(module, Linear):
            stream.surround(module)
            _draw_apart(module, peers)
    named = {
        name: (headed.get_submodule(name.rpartition(".")[0]), name.rpartition(".")[2])
        for name, _ in headed.named_parameters()
    }
    _cut_parameters(headed, cuts, mesh)
    partial = {name: place for name, place in named.items() if cuts[name].is_partial}
    return Divided(headed=headed, partial=partial, layers=tuple(layers), peers=peers)


def _divide_heads(attention: FullAttention, peers: Peers) -> None:
    """Each process has as many heads; what is put in front of keys is put in front of its own."""
    each = attention.n_key_value_heads // peers.count
    for plug in attention.key_value.plugs.values():
        cast(KeyValuePlug, plug).heads = slice(peers.place * each, (peers.place + 1) * each)

    def mean(module: nn.Module, arguments: object, scores: torch.Tensor) -> torch.Tensor:
        return peers.summed(scores) / peers.count

    attention.column_means.register_forward_hook(mean)


def _share_tokens(model: Model, stream: ShareOfTokens, stretches: Sequence[Sequence[str]]) -> None:
    for module in model.modules():
        if isinstance(module, JoinSite) and not looks_at_places(model, module):
            _draw_apart(module, stream.peers)
        elif isinstance(module, JoinSite) or (isinstance(module, OutputSite) and module.plugs):
            stream.put_together(module)
    for stretch in stretches:
        # Another segment begins from other tokens.
        for _, names in groupby(stretch, key=lambda name: name.rpartition(".")[0]):
            stream.divide_rows([model.segments.get_submodule(name) for name in names])


def _draw_apart(module: nn.Module, peers: Peers) -> None:
    """Heads, features and tokens of its own have a dropout of their own."""
    if draws_at_random(module):
        draw_apart(module, peers.place)


def _cut_parameters(headed: HeadedModel, cuts: dict[str, Cut], mesh: DeviceMesh) -> None:
    """Every parameter that is cut becomes a DTensor of this process's part, which is all that is kept of it."""
    for module_name, module in headed.named_modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            dim = cuts[f"{module_name}.{name}"].dim
            if dim is None:
                continue
            start, length = share_of(parameter.shape[dim], mesh.size(), mesh.get_local_rank())
            own = parameter.detach().narrow(dim, start, length).clone(memory_format=torch.contiguous_format)
            cut = DTensor.from_local(
                own, mesh, [Shard(dim)], run_check=False, shape=parameter.shape, stride=parameter.stride()
            )
            module.register_parameter(name, nn.Parameter(cut, requires_grad=parameter.requires_grad))
