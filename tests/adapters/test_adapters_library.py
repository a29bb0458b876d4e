"""Every method equals AdapterHub's library with the same weights; the library lives in an environment of its own."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import pytest
import torch
from compositions import COMPOSED, COMPOSITIONS, NOT_COMPOSED, TASK_IDS
from torch import Tensor

from cypher.adapters.adapter import PLACES, Adapter
from cypher.adapters.arrangement import activate
from cypher.adapters.composition import Fuse, compositions_of, from_dict
from cypher.adapters.fusion import add_fusion, fusion_parameters
from cypher.adapters.methods import adapter_of
from cypher.adapters.vera import FrozenProjections
from cypher.config import adapter_config
from cypher.data.batch import Inputs
from cypher.hub.weights import read_safetensors
from cypher.models import bert, llama, seq2seq
from cypher.models.bert import Bert, BertConfig
from cypher.models.llama import Llama, LlamaConfig
from cypher.models.model import Model
from cypher.models.seq2seq import Seq2Seq, Seq2SeqConfig

SCRIPT = Path(__file__).with_name("adapters_library.py")
ROOT = Path(__file__).parents[2]
PYTHON = Path(os.environ.get("CYPHER_ORACLES", ROOT / ".oracle-adapters")) / "bin" / "python"

SIZES: dict[str, Any] = {"vocabulary_size": 60, "width": 64, "n_heads": 4, "inner_width": 40, "max_positions": 40}
MODELS = {
    "bert": (bert.NAME_MAP, "", lambda: Bert(BertConfig(n_layers=2, with_pooler=False, **SIZES))),
    "llama": (
        llama.NAME_MAP,
        "model.",
        lambda: Llama(LlamaConfig(n_layers=2, n_key_value_heads=4, is_tied=True, norm_epsilon=1e-5, **SIZES)),
    ),
    "bart": (
        seq2seq.NAME_MAP,
        "model.",
        lambda: Seq2Seq(
            Seq2SeqConfig(
                n_encoder_layers=2, n_decoder_layers=2, positions="learned", position_offset=2, activation="gelu",
                with_scaled_embedding=False, with_embedding_norm=True, **SIZES,
            )
        ),
    ),
}  # fmt: skip

# What the library's settings are called here; by the names of ``adapters_library.METHODS``.
LIBRARY_METHODS: dict[str, dict[str, Any]] = {
    "seq_bn": {},
    "double_seq_bn": {},
    "par_bn": {"reduction_factor": 4},
    "scaled_par_bn": {"reduction_factor": 4},
    "seq_bn with norms": {"norm_before": True, "norm_after": True},
    "seq_bn with a norm over the residual": {"norm_after": True, "norm_with_residual": True},
    "seq_bn added to what it reads": {"residual": "read", "scale": "channel"},
    "seq_bn without block 1": {"leave_out": [1]},
    "double_seq_bn everywhere": {"places": ["attention", "cross_attention", "feedforward"]},
    "seq_bn_inv": {},
    "double_seq_bn_inv": {},
    "compacter": {"reduction_factor": 8},
    "compacter++": {"reduction_factor": 8},
    "compacter with own rules": {"reduction_factor": 8, "shared_rule": False, "rank": 2},
    "prefix_tuning": {"length": 5, "bottleneck": 12},
    "prefix_tuning_flat": {"length": 5},
    "prompt_tuning": {},
    "lora": {},
    "lora everywhere": {"targets": ["query", "key", "value", "up", "down"], "rank": 4, "alpha": 16},
    # The library scales the feed-forward before its activation; the paper, and the default here, behind it.
    "ia3": {"outputs": ["key", "value", "up"], "inputs": []},
    "vera": {},
    "dora": {},
    "dvora": {},
    "loreft": {"rank": 2},
    "noreft": {"rank": 2},
    "direft": {"rank": 2},
    "loreft at both ends": {"rank": 2, "suffix_positions": 2},
    "loreft at tied ends": {"rank": 2, "suffix_positions": 2, "tied": True},
    "mam": {
        "parts": [
            {"preset": "prefix_tuning", "length": 5, "bottleneck": 12},
            {"preset": "par_bn", "reduction_factor": 4},
        ]
    },
    "unipelt": {},
}  # fmt: skip

# The library trains matrices where the paper trains their diagonals, and keeps parameters for an end without positions.
LARGER_THERE = {"vera", "dvora", "loreft", "noreft", "direft"}

# Not compared, with the reasons, in ``adapters_library.ABSENT``.
ENCODERS_ONLY = {"prompt_tuning", "unipelt", "loreft at both ends", "loreft at tied ends"}
TABLE = [
    (method, architecture)
    for method in LIBRARY_METHODS
    for architecture in MODELS
    if architecture == "bert" or method not in ENCODERS_ONLY
]


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory, absent: Callable[[str], NoReturn]) -> Path:
    """A folder with what the library makes of every method, written once a session."""
    if not PYTHON.is_file():
        absent(f"no interpreter at {PYTHON} (make oracles)")
    folder = tmp_path_factory.mktemp("adapters-library")
    offline = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
    done = subprocess.run(
        [str(PYTHON), str(SCRIPT), str(folder)],
        capture_output=True,
        text=True,
        timeout=240,
        env={**os.environ, **offline},
    )
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.parametrize(("method", "architecture"), TABLE)
def test_equal_to_the_library(library: Path, method: str, architecture: str) -> None:
    names, prefix, build = MODELS[architecture]
    base = read_safetensors(library / f"{architecture}.safetensors")
    model = build().eval()
    weights = {names.to_ours(prefix + name): value for name, value in base.items() if not name.startswith("inputs.")}
    model.load_state_dict(weights)

    values = LIBRARY_METHODS[method]
    if (method, architecture) == ("ia3", "llama"):
        # The library takes Llama's last linear layer for its first one.
        values = {"outputs": ["key", "value", "down"], "inputs": []}
    ours = adapter_of(adapter_config({"preset": method.split(" ")[0], **values}))
    ours.attach(model, "mine")
    if architecture == "bart" and method.endswith("_inv"):
        # The library changes the embedding of the encoder alone, although the head that undoes it is the decoder's.
        del model.embedding_output.plugs["mine"]

    theirs = read_safetensors(library / f"{architecture}.{method}.safetensors")
    expected = theirs.pop("hidden")
    if method.split(" ")[0] not in LARGER_THERE:
        assert ours.num_params(model) == sum(value.numel() for value in theirs.values())
    assert expected.shape != base["inputs.hidden"].shape or (expected - base["inputs.hidden"]).abs().max() > 1e-2
    adopt(model, architecture, theirs)
    with torch.no_grad():
        hidden = model(inputs_of(base)).hidden
    torch.testing.assert_close(hidden, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("method", "architecture", "composition"),
    [
        (method, architecture, composition)
        for method in COMPOSED
        for architecture in MODELS
        for composition in COMPOSITIONS
        if not {(method, composition), (architecture, composition)} & NOT_COMPOSED
    ],
)
def test_compositions_equal_the_library(library: Path, method: str, architecture: str, composition: str) -> None:
    names, prefix, build = MODELS[architecture]
    base = read_safetensors(library / f"{architecture}.safetensors")
    model = build().eval()
    weights = {names.to_ours(prefix + name): value for name, value in base.items() if not name.startswith("inputs.")}
    model.load_state_dict(weights)
    theirs = read_safetensors(library / f"{architecture}.{method}.{composition}.safetensors")
    expected = theirs.pop("hidden")
    for name in "abc":
        adapter_of(adapter_config({"preset": method, **LIBRARY_METHODS[method]})).attach(model, "mine")
        adopt(
            model,
            architecture,
            {key.replace(f".{name}.", ".mine."): theirs[key] for key in theirs if f".{name}." in key},
        )
        rename(model, "mine", name)
    tree = from_dict(COMPOSITIONS[composition])
    for fuse in compositions_of(tree):
        if isinstance(fuse, Fuse):
            add_fusion(model, fuse)
            adopt_fusion(model, architecture, theirs, fuse)
    activate(model, tree)
    given = inputs_of(base)
    if composition == "multi task":
        given = replace(given, adapter_ids=torch.tensor(TASK_IDS))
    with torch.no_grad():
        hidden = model(given).hidden
    torch.testing.assert_close(hidden, expected, atol=1e-5, rtol=1e-5)


def rename(model: Model, old: str, new: str) -> None:
    for path, part in model.named_modules():
        if isinstance(part, torch.nn.ModuleDict) and path.rpartition(".")[2] in PLACES and old in part:
            part[new] = part.pop(old)


@torch.no_grad()
def adopt_fusion(model: Model, architecture: str, theirs: dict[str, Tensor], fuse: Fuse) -> None:
    own = fusion_parameters(model, fuse)
    left = set(own)
    for name, value in theirs.items():
        where, _, inner = name.partition(f".adapter_fusion_layer.{fuse.name}.")
        if not inner:
            continue
        place = "feedforward"
        if "attention" in where:
            place = "cross_attention" if "cross_attention" in where else "attention"
        segment = f"segments.{_segment(architecture, where)}.{_number(where)}"
        path = f"{segment}.{place}_join.fusions.{fuse.name}.{inner}"
        if path in own:  # the library makes fusions where no adapter is as well
            own[path].copy_(value)
            left -= {path}
    assert not left


def inputs_of(base: dict[str, Tensor]) -> Inputs:
    given = Inputs(token_ids=base["inputs.input_ids"], attention_mask=base["inputs.attention_mask"].bool())
    if "inputs.decoder_input_ids" not in base:
        return given
    target = base["inputs.decoder_input_ids"]
    return Inputs(token_ids=target, attention_mask=torch.ones_like(target, dtype=torch.bool), source=given)


# Names of parameters within one attached module, there and here.
INNER = {
    "adapter_norm_before": "norm_before",
    "adapter_up": "up",
    "adapter_norm_after": "norm_after",
    "gate": "gate.linear",
    "scaling": "scale",
    "phm_rule": "rule",
    "W_left": "left",
    "W_right": "right",
    "b": "bias",
    "lora_A": "down",
    "lora_B": "up",
    "F.0": "to_first.down",
    "F.2": "to_first.up",
    "G.0": "to_second.down",
    "G.2": "to_second.up",
    "learned_source": "source",
    "units.0": "prefix",
    "units.1": "suffix",
}


@torch.no_grad()
def adopt(model: Model, architecture: str, theirs: dict[str, Tensor]) -> None:
    """Copy all the library's tensors into what is attached; every parameter of ours gets one."""
    own = Adapter.parameters_of(model, "mine")
    left = set(own)
    for name, value in theirs.items():
        for path, part in places_of(model, architecture, name, value):
            if path.startswith("frozen."):
                for module in model.modules():
                    if isinstance(module, FrozenProjections):
                        getattr(module, path.removeprefix("frozen.")).copy_(part)
                continue
            parameter = model.get_parameter(path)
            parameter.copy_(part.view_as(parameter))
            left -= {known for known, candidate in own.items() if candidate is parameter}
    assert not left


def places_of(model: Model, architecture: str, name: str, value: Tensor) -> list[tuple[str, Tensor]]:
    """Where a tensor of the library goes: our paths, each with its part of it."""
    names, prefix, _ = MODELS[architecture]
    where, _, inner = name.partition(".mine.")
    if "prefix_tunings" in where:
        return _prefix(model, architecture, inner, value)
    if where == "shared_parameters":
        if inner.startswith("lora"):
            return [(f"frozen.{'down' if inner == 'lora_A' else 'up'}", value)]
        blocks = [f"segments.{segment}.0.feedforward_join" for segment in model.segments]
        return [(f"{blocks[0]}.plugs.mine.down.rule", value)]
    if where.endswith("loras"):
        layer = str(names.to_ours(f"{prefix}{where.removesuffix('.loras')}.weight")).removesuffix(".weight")
        return [(f"{layer}.deltas.mine.{_delta(model, layer, inner)}", value.diagonal() if "vera" in inner else value)]
    if "invertible_adapters" in where:
        return [(f"{'source_' if architecture == 'bart' else ''}embedding_output.plugs.mine.{_inner(inner)}", value)]
    if "prompt_tunings" in where:
        return [("embedding_output.plugs.mine.vectors", value)]
    block = f"segments.{_segment(architecture, where)}.{_number(where)}"
    if where.endswith("prefix_gates"):
        return [(f"{block}.attention.key_value.plugs.mine.gate.linear.{inner}", value)]
    if where.endswith("refts"):
        has_suffix = model.get_submodule(f"{block}.output.plugs.mine").suffix is not None
        return [(f"{block}.output.plugs.mine.{_inner(inner)}", value)] if has_suffix or "units.1" not in inner else []
    place = "feedforward"
    if "attention" in where:
        place = "cross_attention" if "cross_attention" in where else "attention"
    return [(f"{block}.{place}_join.plugs.mine.{_inner(inner)}", value)]


def _prefix(model: Model, architecture: str, inner: str, value: Tensor) -> list[tuple[str, Tensor]]:
    kind, _, part = inner.partition(".")
    segment = "encoder" if kind == "encoder_prefix" or architecture == "bert" else "decoder"
    attention = "cross_attention" if kind == "cross_prefix" else "attention"
    plugs = [f"segments.{segment}.{number}.{attention}.key_value.plugs.mine" for number in model.segments[segment]]
    if part == "wte.weight":
        return [(f"{plugs[0]}.trunk.vectors", value)]
    if part.startswith("control_trans.0"):
        return [(f"{plugs[0]}.trunk.down.{part.rsplit('.', 1)[1]}", value)]
    if part.startswith("control_trans.2"):
        pieces = value.chunk(len(plugs))
        return [(f"{plug}.up.{part.rsplit('.', 1)[1]}", piece) for plug, piece in zip(plugs, pieces, strict=True)]
    rows = value.view(-1, 2 * len(plugs), model.width)
    return [
        (f"{plug}.{what}", rows[:, 2 * number + offset])
        for number, plug in enumerate(plugs)
        for offset, what in enumerate(("key", "value"))
    ]


def _delta(model: Model, layer: str, inner: str) -> str:
    delta = model.get_submodule(f"{layer}.deltas.mine")
    if inner == "m.weight":
        return "magnitude"
    if hasattr(delta, "scale") and isinstance(delta.scale, Tensor):
        return "scale"
    direction = "direction." if hasattr(delta, "direction") else ""
    vera = {"vera_D": "down_scale", "vera_B": "up_scale"}
    return direction + (vera.get(inner) or _inner(inner))


def _inner(name: str) -> str:
    name = re.sub(r"^adapter_down\.[01]\b", "down", name)
    for theirs, ours in INNER.items():
        name = re.sub(rf"(^|\.){re.escape(theirs)}(?=\.|$)", rf"\g<1>{ours}", name)
    return name.replace("projection.weight", "projection")


def _segment(architecture: str, where: str) -> str:
    return {"bert": "encoder", "llama": "decoder"}.get(architecture, where.split(".")[0])


def _number(where: str) -> str:
    found = re.search(r"layers?\.(\d+)", where)
    assert found, where
    return found[1]
