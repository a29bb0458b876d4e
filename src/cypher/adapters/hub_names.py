"""Tensors as AdapterHub's library names and lays them out, and our parameters: one table, read in both directions."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, cast

import torch
from torch import Tensor, nn

from cypher.adapters.adapter import Adapter
from cypher.adapters.hub_architecture import HubArchitecture
from cypher.adapters.vera import frozen_projections
from cypher.errors import ModelError
from cypher.models.model import Model

Layout = Literal["same", "column", "diagonal", "stacked", "interleaved", "orthonormal"]

# Names within one attached module, ours to theirs; compacter's linear layers have names of their own.
_INNER = {
    "norm_before": "adapter_norm_before",
    "down": "adapter_down.0",
    "up": "adapter_up",
    "norm_after": "adapter_norm_after",
    "gate.linear": "gate",
    "scale": "scaling",
}
_KRONECKER = {"rule": "phm_rule", "left": "W_left", "right": "W_right", "bias": "b"}
_COUPLING = {"to_first.down": "F.0", "to_first.up": "F.2", "to_second.down": "G.0", "to_second.up": "G.2"}
_REFT = {"prefix": "units.0", "suffix": "units.1", "source": "learned_source"}
_DELTA: dict[str, tuple[str, Layout]] = {
    "down": ("lora_A", "same"),
    "up": ("lora_B", "same"),
    "scale": ("lora_B", "column"),
    "down_scale": ("vera_D", "diagonal"),
    "up_scale": ("vera_B", "diagonal"),
    "magnitude": ("m.weight", "column"),
    "gate.linear.weight": ("gate.weight", "same"),
    "gate.linear.bias": ("gate.bias", "same"),
}
# What the first releases called these places.
_FIRST_NAMES = {
    "attention_text_task_adapters": "adapters",
    "attention_text_lang_adapters": "adapters",
    "layer_text_task_adapters": "adapters",
    "layer_text_lang_adapters": "adapters",
    "invertible_lang_adapters": "invertible_adapters",
}
_ORTHONORMAL = (".parametrizations.weight.original", ".parametrizations.weight.0.base")


_LAID_OUT: dict[Layout, Callable[[list[Tensor]], Tensor]] = {
    "same": lambda parts: parts[0],
    "column": lambda parts: parts[0].unsqueeze(1),
    "diagonal": lambda parts: torch.diag(parts[0]),
    "stacked": torch.cat,
    "interleaved": lambda parts: torch.stack(parts, 1).flatten(),
}


@dataclass(frozen=True, kw_only=True)
class HubTensor:
    """One tensor of the library and the parameters it is made of.

    Args:
        name: There, without the prefix of a model with heads.
        paths: Here; several are laid out one behind the other.
        layout: ``same``; ``column`` for a vector that is ``(n, 1)`` there; ``diagonal`` for one that is a matrix;
            ``stacked`` over blocks; ``interleaved`` for keys and values of all blocks, row by row; ``orthonormal`` for
            rows that are a product of reflections there.
        length: Rows of an interleaved one.
    """

    name: str
    paths: tuple[str, ...]
    layout: Layout = "same"
    length: int = 0


def hub_tensors(
    model: Model, name: str, architecture: HubArchitecture, *, called: str | None = None
) -> list[HubTensor]:
    """Every tensor of what is attached as ``name``.

    Args:
        model: Holds the adapter.
        name: It is attached under.
        architecture: Of the model.
        called: The adapter's name in the library's folder, if it is another one.
    """
    called = called or name
    made: list[HubTensor] = []
    prefixes: dict[tuple[str, str], list[str]] = {}
    for path in Adapter.parameters_of(model, name):
        where, inner = _split(path, name)
        if match := re.fullmatch(r"segments\.(\w+)\.(\d+)\.(\w+)\.key_value", where):
            segment, number, attention = match.groups()
            if inner.startswith("gate."):
                block = architecture.blocks[segment].format(number)
                gate = f"{block}.{architecture.attentions[attention]}.prefix_tuning.prefix_gates.{called}"
                made.append(HubTensor(name=f"{gate}.{inner.removeprefix('gate.linear.')}", paths=(path,)))
            else:
                prefixes.setdefault((segment, attention), []).append(path)
        else:
            made.append(_one(model, called, path, where, inner, architecture))
    for kind, paths in prefixes.items():
        place = f"prefix_tuning.prefix_tunings.{called}.{architecture.prefixes[kind]}"
        made += _prefix(model, place, {path: _split(path, name)[1] for path in paths})
    return made


def frozen_tensors(model: Model, name: str, *, called: str | None = None) -> dict[str, Tensor]:
    """What the library keeps beside the trained tensors: VeRA's random matrices, as views."""
    matrices = zip(("lora_A", "lora_B"), frozen_projections(model, name), strict=False)
    return {f"shared_parameters.{called or name}.{theirs}": matrix for theirs, matrix in matrices}


def pack(tensor: HubTensor, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Our parameters as the library lays them out.

    Args:
        tensor: Which.
        values: By our paths.
    """
    parts = [values[path].detach().float() for path in tensor.paths]
    if tensor.layout == "orthonormal":
        module = _reflections(*parts[0].shape)
        module.weight = _orthonormal(parts[0])
        kept = module.state_dict()
        return {tensor.name + end: kept[end.removeprefix(".")] for end in _ORTHONORMAL}
    return {tensor.name: _LAID_OUT[tensor.layout](parts).contiguous()}


def unpack(tensor: HubTensor, theirs: Mapping[str, Tensor]) -> list[Tensor]:
    """One value a path of ``tensor``, from the library's tensors by their plain names.

    Raises:
        ModelError: One is missing, or a matrix that is diagonal here is none there.
    """
    if tensor.layout == "orthonormal":
        original, base = (_given(theirs, tensor.name + end) for end in _ORTHONORMAL)
        module = _reflections(*original.shape)
        module.load_state_dict({_ORTHONORMAL[0][1:]: original, _ORTHONORMAL[1][1:]: base})
        return [cast(Tensor, module.weight).detach()]
    value = _given(theirs, tensor.name)
    if tensor.layout == "column":
        return [value.reshape(-1)]
    if tensor.layout == "diagonal":
        diagonal = value.diagonal()
        if not torch.equal(value, torch.diag(diagonal)):
            raise ModelError(
                f"{tensor.name} is a whole matrix",
                needed="a diagonal one: the vectors that vera trains (arXiv 2310.11454) are its diagonals",
            )
        return [diagonal]
    if tensor.layout in ("stacked", "interleaved"):
        rows = max(1, tensor.length) * len(tensor.paths)
        if len(value) % rows:
            raise ModelError(f"{tensor.name} is of length {len(value)}", needed=f"a multiple of {rows}")
        if tensor.layout == "stacked":
            return list(value.chunk(len(tensor.paths)))
        return list(value.view(tensor.length, len(tensor.paths), -1).unbind(1))
    return [value]


def plain_names(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Without the prefix that a model with heads puts in front, and with today's names for what older releases wrote.

    The pool of prefixes is listed once a layer there; the first copy is kept.
    """
    plain: dict[str, Tensor] = {}
    for name, value in tensors.items():
        for prefix in ("bert.", "roberta.", "model."):
            name = name.removeprefix(prefix)
        for old, new in _FIRST_NAMES.items():
            name = name.replace(f".{old}.", f".{new}.") if "." in name else name
            name = new + name.removeprefix(old) if name.startswith(f"{old}.") else name
        plain.setdefault(re.sub(r"^.*\.prefix_tuning\.pool\.", "prefix_tuning.", name), value)
    return plain


def is_redundant(name: str) -> bool:
    """Whether the library writes a tensor although nothing goes through it, or a second time."""
    # A norm in front stands in the list of layers behind it as well; ReFT has a second unit without a suffix.
    return bool(re.search(r"\.adapters\.[^.]+\.adapter_down\.0\.(weight|bias)$|\.refts\.[^.]+\.units\.1\.", name))


def _one(model: Model, name: str, path: str, where: str, inner: str, architecture: HubArchitecture) -> HubTensor:
    if where.endswith("embedding_output"):
        if inner == "vectors":
            return HubTensor(name=f"prompt_tuning.prompt_tunings.{name}.prompt_embedding.weight", paths=(path,))
        part, _, end = inner.rpartition(".")
        return HubTensor(name=f"{architecture.invertible}.{name}.{_COUPLING[part]}.{end}", paths=(path,))
    if path.startswith(f"{where}.deltas."):
        theirs, layout = _DELTA[inner.removeprefix("direction.")]
        layer = str(architecture.names.to_theirs(f"{where}.weight")).removesuffix(".weight").removeprefix("model.")
        return HubTensor(name=f"{layer}.loras.{name}.{theirs}", paths=(path,), layout=layout)
    match = re.fullmatch(r"segments\.(\w+)\.(\d+)\.(\w+)", where)
    assert match, f"a place that no method plugs into: {where}"
    segment, number, place = match.groups()
    block = architecture.blocks[segment].format(number)
    if place == "output":
        return _reft(model, f"{block}.reft_layer.refts.{name}", path, inner)
    join = architecture.joins[place.removesuffix("_join")]
    return _bottleneck(model, f"{block}.{join}.adapters.{name}", name, path, inner)


def _bottleneck(model: Model, place: str, name: str, path: str, inner: str) -> HubTensor:
    plug = model.get_submodule(path[: -len(inner) - 1])
    part, _, end = inner.rpartition(".")
    linear = getattr(plug, part) if part in ("down", "up") else None
    if hasattr(linear, "rule"):
        if end == "rule" and plug.get_parameter("down.rule") is plug.get_parameter("up.rule"):
            return HubTensor(name=f"shared_parameters.{name}.phm_rule", paths=(path,))
        end = _KRONECKER[end]
    if not part:
        return HubTensor(name=f"{place}.{_INNER[end]}", paths=(path,))
    theirs = "adapter_down.1" if part == "down" and getattr(plug, "norm_before", None) is not None else _INNER[part]
    return HubTensor(name=f"{place}.{theirs}.{end}", paths=(path,))


def _reft(model: Model, place: str, path: str, inner: str) -> HubTensor:
    unit, _, rest = inner.partition(".")
    if rest == "projection":
        is_orthonormal = bool(getattr(model.get_submodule(path.removesuffix(".projection")), "orthogonal", False))
        projection = f"{place}.{_REFT[unit]}.projection"
        if is_orthonormal:
            return HubTensor(name=projection, paths=(path,), layout="orthonormal")
        return HubTensor(name=f"{projection}.weight", paths=(path,))
    return HubTensor(name=f"{place}.{_REFT[unit]}.{rest.replace('source', 'learned_source')}", paths=(path,))


def _prefix(model: Model, place: str, inner: dict[str, str]) -> Iterator[HubTensor]:
    flat = tuple(path for path in inner if inner[path] in ("key", "value"))
    if flat:
        length = len(model.get_parameter(flat[0]))
        yield HubTensor(name=f"{place}.control_trans", paths=flat, layout="interleaved", length=length)
        return
    trunk = {"trunk.vectors": "wte.weight", "trunk.down.weight": "control_trans.0.weight",
             "trunk.down.bias": "control_trans.0.bias"}  # fmt: skip
    for path in inner:
        if inner[path] in trunk:
            yield HubTensor(name=f"{place}.{trunk[inner[path]]}", paths=(path,))
    for end in ("weight", "bias"):
        stacked = tuple(path for path in inner if inner[path] == f"up.{end}")
        yield HubTensor(name=f"{place}.control_trans.2.{end}", paths=stacked, layout="stacked")


def _split(path: str, name: str) -> tuple[str, str]:
    """A parameter's path before and behind its adapter's name."""
    for place in ("plugs", "deltas"):
        where, found, inner = path.partition(f".{place}.{name}.")
        if found:
            return where, inner
    raise AssertionError(f"{path} is no parameter of {name}")


def _given(theirs: Mapping[str, Tensor], name: str) -> Tensor:
    if name not in theirs:
        raise ModelError(f"the adapter lacks {name}", needed="the tensors that its configuration names")
    return theirs[name].float()


def _reflections(rank: int, width: int) -> nn.Module:
    """A layer whose weight torch keeps orthonormal in the way the library asks it to."""
    return nn.utils.parametrizations.orthogonal(nn.Linear(width, rank, bias=False))


def _orthonormal(rows: Tensor) -> Tensor:
    columns, triangle = torch.linalg.qr(rows.t())
    return torch.where(triangle.diagonal() < 0, -columns, columns).t()
