"""How a divided layer sees its own part of its parameters, and what it exchanges over the vocabulary."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from cypher.adapters.dora import RowNorms
from cypher.layers.linear import Delta, Linear
from cypher.layers.vocabulary_logits import VocabularyLogits
from cypher.parallel.exchange import Peers, share_of

Place = tuple[nn.Module, str]
"""A module and the name of one of its parameters; the parameter itself is replaced when copies divide it further."""


class OwnPart:
    """While a module runs, its divided parameters are plain tensors: this process's part of each.

    A context manager, for what is done with the part outside of a forward.

    Args:
        module: Surrounded by hooks.
        divided: Parameters of it and of what is inside.
        added_once: Biases of layers that make summands: of all processes, only the first adds them.
    """

    def __init__(self, module: nn.Module, divided: list[Place], added_once: list[Place] | None = None) -> None:
        self.divided, self.added_once = divided, added_once or []
        self._whole: list[tuple[nn.Module, str, nn.Parameter | None]] = []
        module.register_forward_pre_hook(lambda *_: self.__enter__())
        module.register_forward_hook(lambda *_: self.__exit__(), always_call=True)

    def __enter__(self) -> None:
        for module, name in self.divided:
            self._show(module, name, cast(DTensor, module._parameters[name]).to_local())
        for module, name in self.added_once:
            bias = module._parameters[name]
            # One that is trained stays in the graph, so that its gradient is there, as zero, in every process.
            self._show(module, name, bias * 0 if bias is not None and bias.requires_grad else None)

    def __exit__(self, *_: object) -> None:
        while self._whole:
            module, name, parameter = self._whole.pop()
            module._parameters[name] = parameter

    def _show(self, module: nn.Module, name: str, part: Tensor | None) -> None:
        self._whole.append((module, name, module._parameters[name]))
        module._parameters[name] = cast("nn.Parameter | None", part)


def divide_linear(layer: Linear, dims: Mapping[str, int], peers: Peers, *, is_row: bool) -> OwnPart:
    """Let a layer, and the deltas on it, work with this process's part of them.

    Args:
        layer: Still undivided.
        dims: Dim along which each of its parameters will be cut.
        peers: Have the other parts.
        is_row: Whether it has a part of the inputs and makes a summand of the output, or the other way round.
    """
    start, length = share_of(layer.in_features if is_row else layer.out_features, peers.count, peers.place)
    own, inputs, outputs = slice(start, start + length), slice(layer.in_features), slice(layer.out_features)
    summands = [layer] if is_row else []
    for path, module in layer.deltas.named_modules(prefix="deltas"):
        if isinstance(module, Delta):
            module.narrow(own if is_row else inputs, outputs if is_row else own)
        if is_row and isinstance(module, Linear) and f"{path}.weight" in dims:
            summands.append(module)
            module.register_forward_hook(lambda _module, _given, made: peers.summed_inside(made))
        if is_row and isinstance(module, RowNorms):
            module.register_forward_hook(lambda _module, _given, norms: peers.summed(norms.square()).sqrt())
    divided = [
        (layer.get_submodule(path.rpartition(".")[0]), path.rpartition(".")[2])
        for path, _ in layer.named_parameters()
        if path in dims
    ]
    biases: list[Place] = [(summand, "bias") for summand in summands if summand.bias is not None]
    return OwnPart(layer, divided, biases if peers.place else None)


def divide_output(layer: Linear, peers: Peers) -> None:
    """Logits of a linear layer over the vocabulary, whole in every process; the layer itself is divided already."""
    layer.register_forward_pre_hook(lambda _module, given: (peers.spread(given[0]), *given[1:]))
    layer.register_forward_hook(lambda _module, _given, made: peers.joined(made, dim=-1, length=layer.out_features))


def divide_table(table: nn.Embedding, peers: Peers) -> None:
    """Vectors of tokens: each process looks up its own, and those of others are zero until all are summed."""
    start, length = share_of(table.num_embeddings, peers.count, peers.place)
    elsewhere: list[Tensor] = []

    def look_up(module: nn.Module, given: tuple[Tensor, ...]) -> tuple[Tensor]:
        (token_ids,) = given
        elsewhere[:] = [(token_ids < start) | (token_ids >= start + length)]
        return ((token_ids - start).masked_fill(elsewhere[0], 0),)

    def add_up(module: nn.Module, given: object, vectors: Tensor) -> Tensor:
        return peers.summed(vectors.masked_fill(elsewhere.pop().unsqueeze(-1), 0))

    OwnPart(table, [(table, "weight")])
    table.register_forward_pre_hook(look_up)
    table.register_forward_hook(add_up)


def divide_logits(logits: VocabularyLogits, peers: Peers) -> None:
    """Logits by a divided table: each process compares with its own tokens' vectors; whole in every process."""
    sizes: list[int] = []

    def compare(
        module: nn.Module, given: tuple[Any, ...], by_name: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        hidden, vectors, bias = _arguments(*given, **by_name)
        sizes[:] = [len(vectors)]
        return (peers.spread(hidden), vectors.to_local(), None if bias is None else bias.to_local()), {}

    logits.register_forward_pre_hook(compare, with_kwargs=True)
    logits.register_forward_hook(lambda _module, _given, made: peers.joined(made, dim=-1, length=sizes.pop()))


def _arguments(hidden: Tensor, vectors: DTensor, bias: DTensor | None = None) -> tuple[Tensor, DTensor, DTensor | None]:
    return hidden, vectors, bias
