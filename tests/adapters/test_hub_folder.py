"""Folders written here load in AdapterHub's library with the same outputs, and those it writes load here."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import pytest
import torch
from test_adapters_library import LIBRARY_METHODS, MODELS, PYTHON, TABLE
from tiny_models import randomise
from torch import Tensor

from cypher.adapters.adapter import Adapter
from cypher.adapters.arrangement import activate
from cypher.adapters.average import average_adapters
from cypher.adapters.composition import Fuse, Tree, compositions_of, from_dict, names_of
from cypher.adapters.folder import load_adapter, save_adapter
from cypher.adapters.fusion import Fusion, add_fusion, fusion_parameters
from cypher.adapters.hub_folder import HubModel, load_hub_adapter, save_hub_adapter
from cypher.adapters.hub_fusion import load_hub_fusion, save_hub_fusion
from cypher.adapters.hub_heads import HubHead, load_hub_head, save_hub_head
from cypher.adapters.hub_pickle import convert_pickles, has_pickles
from cypher.adapters.hub_setup import load_hub_setup, save_hub_setup, setup_to_hub
from cypher.adapters.methods import adapter_of
from cypher.config import AdapterConfig, FusionConfig, adapter_config
from cypher.data.batch import Inputs
from cypher.errors import ModelError
from cypher.hub.weights import read_safetensors, write_safetensors
from cypher.models.model import Model

SCRIPT = Path(__file__).with_name("hub_folders_library.py")
OF = {name: HubModel(name="some/model", type=name) for name in MODELS}

# The library has a reversible change on the encoder's side alone; refused in both directions.
ONE_SIDED = {("seq_bn_inv", "bart"), ("double_seq_bn_inv", "bart")}
FOLDERS = [pair for pair in TABLE if pair not in ONE_SIDED]

SETUPS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "stack": ("bert", "seq_bn", {"type": "Stack", "children": ["b", "a", "c"]}),
    "fuse": ("llama", "seq_bn", {"type": "Fuse", "children": ["a", "b", "c"]}),
    "fuse on a stack": (
        "bart", "double_seq_bn", {"type": "Stack", "children": ["c", {"type": "Fuse", "children": ["b", "a"]}]},
    ),
    "fuse of a stack": (
        "bert", "double_seq_bn", {"type": "Fuse", "children": [{"type": "Stack", "children": ["a", "b"]}, "c"]},
    ),
    "split": ("bert", "seq_bn", {"type": "Split", "children": ["a", "c"], "splits": [4, 5]}),
    "batch split": ("bert", "lora", {"type": "BatchSplit", "children": ["c", "b"], "batch_sizes": [2, 1]}),
    "parallel": ("llama", "lora", {"type": "Parallel", "children": ["a", "b", "c"]}),
    "average": (
        "bert", "double_seq_bn",
        {"type": "Average", "children": ["a", "b"], "weights": [0.3, 0.2], "normalise_weights": False},
    ),
    "multi task": ("bert", "lora", {"type": "MultiTask", "children": ["a", "b", "c"]}),
}  # fmt: skip

AVERAGES: list[dict[str, Any]] = [
    {"id": "mean of seq_bn", "method": "seq_bn", "strategy": "linear", "weights": None},
    {"id": "mean of double_seq_bn", "method": "double_seq_bn", "strategy": "linear", "weights": [0.5, 1.5, 1.0]},
    {"id": "mean of compacter", "method": "compacter", "strategy": "linear", "weights": [2.0, 1.0, 1.0]},
    {"id": "mean of prefix_tuning", "method": "prefix_tuning", "strategy": "linear", "weights": None},
    {"id": "mean of noreft", "method": "noreft", "strategy": "linear", "weights": [1.0, 2.0, 3.0]},
    {"id": "mean of vera", "method": "vera", "strategy": "linear", "weights": [1.0, 2.0, 3.0]},
    {"id": "mean of mam", "method": "mam", "strategy": "linear", "weights": None},
    {"id": "mean of ia3", "method": "ia3", "strategy": "linear", "weights": None},
    {"id": "mean of lora", "method": "lora", "strategy": "linear", "weights": [1.0, 1.0, -0.5]},
    {"id": "negate b", "method": "lora", "strategy": "lora_linear_only_negate_b", "weights": [1.0, 1.0, -0.5]},
    {"id": "svd", "method": "lora", "strategy": "lora_delta_w_svd", "weights": [1.0, 1.0, -0.5], "rank": 8},
    {"id": "svd of less rank", "method": "lora", "strategy": "lora_delta_w_svd", "weights": None, "rank": 3},
]


def config_of(method: str, architecture: str) -> AdapterConfig:
    values = LIBRARY_METHODS[method]
    if (method, architecture) == ("ia3", "llama"):
        # The library takes Llama's last linear layer for its first one.
        values = {"outputs": ["key", "value", "down"], "inputs": []}
    return adapter_config({"preset": method.split(" ")[0], **values})


def build(architecture: str) -> Model:
    torch.manual_seed(0)
    model: Model = MODELS[architecture][2]().eval()
    with torch.no_grad():
        for path, parameter in model.named_parameters():
            # DoRA scales the weight alone here, the bias as well there: without biases they agree.
            is_scaled = path.endswith(("query.bias", "value.bias"))
            torch.nn.init.zeros_(parameter) if is_scaled else torch.nn.init.normal_(parameter, std=0.2)
    return model


def inputs(architecture: str) -> dict[str, Tensor]:
    """Rows of equal length: the library's gates average over padding as well."""
    generator = torch.Generator().manual_seed(1)
    given = {"input_ids": torch.randint(4, 60, (3, 9), generator=generator)}
    given["attention_mask"] = torch.ones(3, 9, dtype=torch.int64)
    if architecture == "bart":
        given["decoder_input_ids"] = torch.randint(4, 60, (3, 7), generator=generator)
    return given


def hidden_of(model: Model, architecture: str, *, adapter_ids: Tensor | None = None) -> Tensor:
    given = inputs(architecture)
    read = Inputs(token_ids=given["input_ids"], attention_mask=given["attention_mask"].bool())
    if "decoder_input_ids" in given:
        target = given["decoder_input_ids"]
        read = Inputs(token_ids=target, attention_mask=torch.ones_like(target, dtype=torch.bool), source=read)
    with torch.no_grad():
        hidden: Tensor = model(replace(read, adapter_ids=adapter_ids)).hidden
    return hidden


def trained(architecture: str, method: str, names: str = "m", *, fusions: Tree | None = None) -> Model:
    """A model with adapters of one method that hold values as if they had been trained."""
    model = build(architecture)
    for number, name in enumerate(names):
        called = "mine" if name == "m" else name
        adapter_of(config_of(method, architecture)).attach(model, called)
        randomise(model, called, seed=number)
        with torch.no_grad():
            for path, parameter in Adapter.parameters_of(model, called).items():
                if path.endswith(".projection") and "loreft" in method:
                    parameter.copy_(torch.linalg.qr(torch.randn(parameter.shape).t())[0].t())
    for fuse in compositions_of(fusions or ""):
        if isinstance(fuse, Fuse):
            add_fusion(model, fuse)
            with torch.no_grad():
                for parameter in fusion_parameters(model, fuse).values():
                    parameter.copy_(torch.randn_like(parameter) * 0.2)
    return model


@pytest.fixture(scope="session")
def root(tmp_path_factory: pytest.TempPathFactory, absent: Callable[[str], NoReturn]) -> Path:
    """A folder with what both sides wrote, and what the library computes; made once a session."""
    if not PYTHON.is_file():
        absent(f"no interpreter at {PYTHON} (make oracles)")
    root = tmp_path_factory.mktemp("hub-folders")
    for architecture, (names, prefix, _) in MODELS.items():
        state = build(architecture).state_dict()
        named = {str(names.to_theirs(name)).removeprefix(prefix): value for name, value in state.items()}
        if architecture == "bart":
            named |= {f"{side}.embed_tokens.weight": named["shared.weight"] for side in ("encoder", "decoder")}
        write_safetensors(root / f"{architecture}.safetensors", named)
        write_safetensors(root / f"{architecture}.inputs.safetensors", inputs(architecture))
    for method, architecture in FOLDERS:
        folder = root / "ours" / f"{architecture}.{method}"
        config = config_of(method, architecture)
        save_hub_adapter(folder, trained(architecture, method), "mine", config=config, of=OF[architecture])
    plan: dict[str, Any] = {"methods": FOLDERS, "setups": [], "averages": []}
    for name, (architecture, method, values) in SETUPS.items():
        tree = from_dict(values)
        model = trained(architecture, method, "abc", fusions=tree)
        configs = dict.fromkeys(names_of(tree), config_of(method, architecture))
        save_hub_setup(
            root / "ours" / f"{architecture}.{method}.{name}", model, tree, configs=configs, of=OF[architecture]
        )
        assert not isinstance(tree, str)
        plan["setups"].append([name, architecture, method, setup_to_hub(tree)])
    for case in AVERAGES:
        folder, config = f"{case['method']} to average", config_of(case["method"], "bert")
        model = trained("bert", case["method"], "abc")
        for name in "abc":
            save_hub_adapter(root / "ours" / folder / name, model, name, config=config, of=OF["bert"])
        plan["averages"].append({**case, "names": ["a", "b", "c"], "folder": f"ours/{folder}"})
    (root / "plan.json").write_text(json.dumps(plan))
    save_hub_head(root / "ours" / "head", 64, head(), of=OF["bert"])
    offline = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "PYTHONPATH": ""}
    done = subprocess.run(
        [str(PYTHON), str(SCRIPT), str(root)],
        capture_output=True,
        text=True,
        timeout=400,
        env={**os.environ, **offline},
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return root


def head() -> HubHead:
    generator = torch.Generator().manual_seed(5)
    layer = (torch.randn(2, 64, generator=generator), torch.randn(2, generator=generator))
    return HubHead(name="answers", kind="question_answering", layers=(layer,))


def theirs_of(root: Path, folder: str) -> Tensor:
    return read_safetensors(root / f"{folder}.hidden.safetensors")["hidden"]


@pytest.mark.parametrize(("method", "architecture"), FOLDERS)
def test_the_library_computes_the_same_from_our_folder(root: Path, method: str, architecture: str) -> None:
    hidden = hidden_of(trained(architecture, method), architecture)
    before = hidden_of(build(architecture), architecture)
    assert (hidden[:, -before.shape[1] :] - before).abs().max() > 1e-3
    expected = theirs_of(root, f"ours/{architecture}.{method}")
    torch.testing.assert_close(hidden, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("method", "architecture"), FOLDERS)
def test_we_compute_the_same_from_the_librarys_folder(
    root: Path, method: str, architecture: str, tmp_path: Path
) -> None:
    folder = root / "theirs" / f"{architecture}.{method}"
    model = build(architecture)
    if has_pickles(folder):
        with pytest.raises(ModelError, match="cypher adapters convert"):
            load_hub_adapter(folder, model)
        convert_pickles(folder, tmp_path / "safe")
        folder = tmp_path / "safe"
    assert load_hub_adapter(folder, model, name="here").name == "here"
    expected = theirs_of(root, f"theirs/{architecture}.{method}")
    torch.testing.assert_close(hidden_of(model, architecture), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", SETUPS)
@pytest.mark.parametrize("side", ["ours", "theirs"])
def test_set_ups_load_on_both_sides(root: Path, name: str, side: str) -> None:
    architecture, method, values = SETUPS[name]
    folder = f"{side}/{architecture}.{method}.{name}"
    model = build(architecture)
    tree, configs = load_hub_setup(root / folder, model)
    assert set(configs) == set(names_of(tree))
    if name != "average":  # its weights are rounded anew on the way
        assert tree == from_dict(values)
    activate(model, tree)
    task = torch.tensor([2, 0, 2]) if name == "multi task" else None
    hidden = hidden_of(model, architecture, adapter_ids=task)
    torch.testing.assert_close(hidden, theirs_of(root, folder), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("case", AVERAGES, ids=[case["id"] for case in AVERAGES])
def test_averages_equal_the_library(root: Path, case: dict[str, Any]) -> None:
    model = trained("bert", case["method"], "abc")
    configs = dict.fromkeys("abc", config_of(case["method"], "bert"))
    options = {key: case[key] for key in ("weights", "strategy", "rank") if key in case}
    average_adapters(model, "mean", configs, **options)
    activate(model, "mean")
    if case["id"] == "svd of less rank":
        # The library keeps alpha, so that the scale of the update changes with the rank: its matrices are the same.
        other = build("bert")
        load_hub_adapter(root / "theirs" / case["id"], other)
        both = [Adapter.parameters_of(model, "mean"), Adapter.parameters_of(other, "mean")]
        for path in both[0]:
            if path.endswith(".up"):
                ours, theirs = (values[path] @ values[path.removesuffix("up") + "down"] for values in both)
                torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
        return
    expected = theirs_of(root, f"ours/{case['id']}")
    torch.testing.assert_close(hidden_of(model, "bert"), expected, atol=1e-5, rtol=1e-5)


def test_heads_on_both_sides(root: Path) -> None:
    for side, found in (("ours", head()), ("theirs", load_hub_head(root / "theirs" / "heads" / "qa"))):
        expected = read_safetensors(root / side / "head.scores.safetensors")
        weight, bias = found.layers[0]
        scores = torch.nn.functional.linear(hidden_of(build("bert"), "bert"), weight, bias)
        torch.testing.assert_close(scores, torch.stack([expected["start"], expected["end"]], -1), atol=1e-4, rtol=1e-5)
    kinds = load_hub_head(root / "theirs" / "heads" / "kinds")
    assert (kinds.kind, len(kinds.layers), kinds.activation) == ("classification", 2, "tanh")
    tags = load_hub_head(root / "theirs" / "heads" / "tags")
    assert (tags.kind, [len(weight) for weight, _ in tags.layers]) == ("tagging", [5])


@pytest.mark.parametrize(("method", "architecture"), FOLDERS)
def test_there_and_back_is_the_same(tmp_path: Path, method: str, architecture: str) -> None:
    model, config = trained(architecture, method), config_of(method, architecture)
    save_hub_adapter(tmp_path / "theirs", model, "mine", config=config, of=OF[architecture])
    other = build(architecture)
    loaded = load_hub_adapter(tmp_path / "theirs", other)
    torch.testing.assert_close(hidden_of(other, architecture), hidden_of(model, architecture), atol=1e-5, rtol=1e-5)
    save_hub_adapter(tmp_path / "again", other, "mine", config=loaded.config, of=OF[architecture])
    first, again = (json.loads((tmp_path / name / "adapter_config.json").read_text()) for name in ("theirs", "again"))
    assert first == again
    if "vera" not in method and "dvora" not in method:
        save_adapter(tmp_path / "ours", other, "mine", config=loaded.config, model_name="x", dtype=torch.float32)
        third = build(architecture)
        load_adapter(tmp_path / "ours", third)
        torch.testing.assert_close(hidden_of(third, architecture), hidden_of(other, architecture))


def test_nothing_is_left_attached_when_a_folder_does_not_fit(tmp_path: Path) -> None:
    model, config = trained("bert", "seq_bn"), config_of("seq_bn", "bert")
    save_hub_adapter(tmp_path, model, "mine", config=config, of=OF["bert"])
    tensors = read_safetensors(tmp_path / "adapter.safetensors")
    place = "bert.encoder.layer.1.output.adapters.mine.adapter_up.bias"
    for changed, reason in (
        ({name: tensors[name] for name in tensors if name != place}, "lacks encoder.layer.1.output"),
        ({**tensors, place: torch.zeros(3)}, r"is for \(3,\): needs \(64,\)"),
        ({**tensors, "bert.encoder.layer.7.output.adapters.mine.adapter_up.bias": torch.zeros(64)}, "has no place"),
    ):
        write_safetensors(tmp_path / "adapter.safetensors", changed)
        other = build("bert")
        with pytest.raises(ModelError, match=reason):
            load_hub_adapter(tmp_path, other)
        assert not Adapter.parameters_of(other, "mine")
    about = json.loads((tmp_path / "adapter_config.json").read_text())
    (tmp_path / "adapter_config.json").write_text(json.dumps({**about, "hidden_size": 768}))
    with pytest.raises(ModelError, match="for width 768"):
        load_hub_adapter(tmp_path, build("bert"))
    (tmp_path / "adapter_config.json").write_text(json.dumps({**about, "model_type": "whisper"}))
    with pytest.raises(ModelError, match="is for a whisper"):
        load_hub_adapter(tmp_path, build("bert"))


def test_what_the_library_computes_otherwise_is_not_written(tmp_path: Path) -> None:
    dora = trained("bert", "dora")
    with torch.no_grad():
        dora.get_parameter("segments.encoder.1.attention.value.bias").fill_(0.5)
    with pytest.raises(ModelError, match="scales as well"):
        save_hub_adapter(tmp_path / "dora", dora, "mine", config=config_of("dora", "bert"), of=OF["bert"])
    for architecture, method, values, reason in (
        ("bert", "lora", {"type": "Stack", "children": ["a", "b"]}, "which is lost"),
        ("bert", "seq_bn", {"type": "Average", "children": ["a", "b"]}, "once more"),
        ("bert", "seq_bn", {"type": "MultiTask", "children": ["a", "b"]}, "taken twice"),
        ("bert", "dora", {"type": "Parallel", "children": ["a", "b"]}, "magnitudes of one adapter"),
        ("bert", "loreft", {"type": "Stack", "children": ["a", "b"]}, "changes what the first says"),
        ("bert", "lora", {"type": "Split", "children": ["a", "b"], "splits": [4, 5]}, "where a sub-layer ends"),
    ):
        model, tree = trained(architecture, method, "ab"), from_dict(values)
        configs = dict.fromkeys("ab", config_of(method, architecture))
        with pytest.raises(ModelError, match=reason):
            save_hub_setup(tmp_path / "setup", model, tree, configs=configs, of=OF[architecture])
    assert not (tmp_path / "setup").exists()


def test_vera_of_whole_matrices_is_refused(tmp_path: Path) -> None:
    config = config_of("vera", "bert")
    save_hub_adapter(tmp_path, trained("bert", "vera"), "mine", config=config, of=OF["bert"])
    tensors = read_safetensors(tmp_path / "adapter.safetensors")
    place = next(name for name in tensors if name.endswith("vera_B"))
    write_safetensors(tmp_path / "adapter.safetensors", {**tensors, place: torch.ones_like(tensors[place])})
    with pytest.raises(ModelError, match="is a whole matrix"):
        load_hub_adapter(tmp_path, build("bert"))


def test_a_fusion_keeps_its_options(tmp_path: Path) -> None:
    model, fuse = trained("bert", "seq_bn", "ab"), Fuse("a", "b")
    config = FusionConfig(value=False, regularisation=0, dropout=0.25)
    add_fusion(model, fuse, config)
    save_hub_fusion(tmp_path, model, fuse, of=OF["bert"])
    about = json.loads((tmp_path / "adapter_fusion_config.json").read_text())
    assert (about["name"], about["adapter_names"], about["config"]["value"]) == ("a,b", ["a", "b"], False)
    other = trained("bert", "seq_bn", "ab")
    assert load_hub_fusion(tmp_path, other) == fuse
    torch.testing.assert_close(dict(fusion_parameters(other, fuse)), dict(fusion_parameters(model, fuse)))
    kept = [part.config for part in other.modules() if isinstance(part, Fusion)]
    assert kept == [config, config]
    about["config"]["temperature"] = True
    (tmp_path / "adapter_fusion_config.json").write_text(json.dumps(about))
    with pytest.raises(ModelError, match="a fusion with temperature"):
        load_hub_fusion(tmp_path, trained("bert", "seq_bn", "ab"))
