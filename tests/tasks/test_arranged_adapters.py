"""Compositions and AdapterDrop from a recipe: what is trained, what stays, what comes back, what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from cypher.adapters.adapter import Adapter, freeze_all_but
from cypher.adapters.composition import Fuse, Stack
from cypher.adapters.folder import save_adapter
from cypher.adapters.hub_folder import HubModel, save_hub_adapter
from cypher.adapters.methods import adapter_of
from cypher.config import Recipe, adapter_config, supports
from cypher.errors import ConfigError, CypherError, ModelError
from cypher.hub.weights import read_safetensors
from cypher.models.headed import HeadedModel
from cypher.models.llama import Llama, LlamaConfig
from cypher.models.load import load_model
from cypher.tasks.arranged_adapters import check_depth, load_arrangement
from cypher.tasks.extract_span import SpanHead
from cypher.tasks.find_reader import find_adapter
from cypher.tasks.find_task import find_task
from cypher.tasks.run import run_recipe
from cypher.tasks.task_folder import load_task
from cypher.tasks.task_kind import Source
from cypher.tasks.use_task import evaluate, predict
from cypher.train.checkpoint import newest_checkpoint
from cypher.train.progress import Silence

SEQ_BN = "[adapter]\npreset = 'seq_bn'\nreduction_factor = 2\n"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    rows = [
        {"text": f"the {'cat' if k % 3 else 'dog'} is at the {'mill' if k % 2 else 'river'} {k}", "label": f"l{k % 2}"}
        for k in range(40)
    ]
    path = tmp_path / "data.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def recipe(model: Path, data: Path, more: str, *, train: str = "", task: str = "classify") -> Recipe:
    return Recipe.from_toml(
        f"""
        [model]
        name = "{model}"
        [task]
        kind = "{task}"
        [data]
        train = ["{data}"]
        development = ["{data}"]
        [train]
        epochs = 2
        batch_size = 8
        learning_rate = 1e-2
        {train}
        [precision]
        compute = "fp32"
        """
        + more,
        name="tiny",
    )


@pytest.fixture
def trained(tmp_path: Path, tiny_bert: Path) -> Path:
    """Folders of adapters for one model: two bottlenecks ``a`` and ``b`` in our format, ``theirs``, and a LoRA."""
    loaded = load_model(str(tiny_bert))
    torch.manual_seed(1)
    for name, preset in (("a", "seq_bn"), ("b", "seq_bn"), ("theirs", "seq_bn"), ("lora", "lora")):
        config = adapter_config({"preset": preset})
        adapter_of(config).attach(loaded.model, name)
        for value in Adapter.parameters_of(loaded.model, name).values():
            torch.nn.init.normal_(value, std=0.2)
        folder = tmp_path / "adapters" / name
        if name == "theirs":
            of = HubModel(name="bert-base-uncased", type="bert")
            save_hub_adapter(folder, loaded.model, name, config=config, of=of)
        else:
            save_adapter(folder, loaded.model, name, config=config, model_name=str(tiny_bert), dtype=torch.float32)
        Adapter.detach(loaded.model, name)
    return tmp_path / "adapters"


def fused(trained: Path, *names: str, more: str = "") -> str:
    return f"[arrangement]\nfuse = {json.dumps([str(trained / name) for name in names])}\n{more}"


def stacked(trained: Path, name: str, *, adapter: str = SEQ_BN) -> str:
    return f'{adapter}[arrangement]\nstack_on = "{trained / name}"\n'


def tensors(folder: Path) -> dict[str, Tensor]:
    return read_safetensors(folder / "adapter.safetensors")


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


ARRANGED = ["fuse", "fuse on a stack", "stack", "stack of lora", "drop"]


def arranged(name: str, trained: Path) -> str:
    return {
        "fuse": fused(trained, "a", "b", more="fusion = { regularisation = 0.1 }\ndrop_in_training = 1\n"),
        "fuse on a stack": fused(trained, "a", "theirs", more=f'stack_on = "{trained / "lora"}"\n'),
        "stack": stacked(trained, "theirs"),
        "stack of lora": stacked(trained, "lora", adapter="[adapter]\nrank = 4\n"),
        "drop": SEQ_BN + "[arrangement]\ndrop_in_training = 2\n",
    }[name]


@pytest.mark.parametrize("name", ARRANGED)
def test_a_run_leaves_a_task_that_answers_as_it_did(
    name: str, tmp_path: Path, tiny_bert: Path, data: Path, trained: Path
) -> None:
    given = recipe(tiny_bert, data, arranged(name, trained))
    assert Recipe.from_toml(given.to_toml()) == given
    run = run_recipe(given, folder=tmp_path / "run")
    before = {path.name: tensors(path) for path in trained.iterdir()}
    shutil.rmtree(trained)  # the run has its own copies
    source = Source(path=data)
    assert evaluate(find_task(run.folder), source).scores == pytest.approx(run.result.scores, abs=6, rel=0.05)
    assert len(list(predict(find_task(run.folder), source))) == 40
    kept = run.folder / "task" / "adapters"
    frozen = {"fuse": "ab", "fuse on a stack": ["lora", "a", "theirs"], "stack": ["theirs"], "stack of lora": ["lora"]}
    for adapter in frozen.get(name, ()):
        assert same(tensors(kept / adapter), before[adapter])
    assert (run.folder / "task" / "fusion.safetensors").exists() == name.startswith("fuse")
    assert (run.folder / "task" / "adapter_config.json").exists() == (name == "drop")
    again = run_recipe(given, folder=tmp_path / "run")
    assert again.result.scores == run.result.scores


def test_only_what_is_new_is_trained(tmp_path: Path, tiny_bert: Path, data: Path, trained: Path) -> None:
    for name, marker in (("fuse", ".fusions.a,b."), ("stack", ".plugs.trained.")):
        run = run_recipe(recipe(tiny_bert, data, arranged(name, trained)), folder=tmp_path / name)
        learnt = read_safetensors(run.folder / "best.safetensors")
        assert all(marker in path or path.startswith("head.") for path in learnt)
        assert any(marker in path for path in learnt)


def test_a_step_of_training_leaves_blocks_out(tmp_path: Path, tiny_bert: Path, data: Path, trained: Path) -> None:
    plain = run_recipe(recipe(tiny_bert, data, SEQ_BN), folder=tmp_path / "plain")
    dropping = run_recipe(recipe(tiny_bert, data, arranged("drop", trained)), folder=tmp_path / "drop")
    learnt = [read_safetensors(run.folder / "best.safetensors") for run in (plain, dropping)]
    assert learnt[0].keys() == learnt[1].keys()
    assert not same(*learnt)
    model = load_task(dropping.folder / "task").model.model
    assert model.arrangement is None or not model.arrangement.skipped


def test_what_was_trained_is_at_work_when_it_is_loaded(
    tmp_path: Path, tiny_bert: Path, data: Path, trained: Path
) -> None:
    run = run_recipe(recipe(tiny_bert, data, arranged("fuse on a stack", trained)), folder=tmp_path / "run")
    loaded = load_model(str(tiny_bert))
    found = load_arrangement(run.folder / "task", loaded)
    assert found.tree == Stack("lora", Fuse("a", "theirs"))
    model = load_task(run.folder / "task").model.model
    assert model.arrangement is not None
    learnt = read_safetensors(run.folder / "best.safetensors")
    for path, value in model.named_parameters():
        if ".fusions." in path:
            torch.testing.assert_close(value, learnt[f"model.{path}"], atol=1e-3, rtol=1e-3)


class Stopped(Silence):
    """Ends a run in its middle, as Ctrl-C does."""

    def stepped(self, **values: Any) -> None:
        if values["step"] == 6:
            raise KeyboardInterrupt


@pytest.mark.parametrize("name", ARRANGED)
def test_an_interrupted_run_goes_on_as_if_nothing_had_happened(
    name: str, tmp_path: Path, tiny_bert: Path, data: Path, trained: Path
) -> None:
    given = recipe(tiny_bert, data, arranged(name, trained))
    whole = run_recipe(given, folder=tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run_recipe(given, folder=tmp_path / "cut", progress=Stopped())
    assert newest_checkpoint(tmp_path / "cut" / "checkpoints") is not None
    shutil.rmtree(trained)
    cut = run_recipe(given, folder=tmp_path / "cut")
    assert cut.result.scores == whole.result.scores
    best = [read_safetensors(run.folder / "best.safetensors") for run in (whole, cut)]
    assert same(*best)


def test_a_run_can_start_from_another_of_the_same_adapters(
    tmp_path: Path, tiny_bert: Path, data: Path, trained: Path
) -> None:
    first = run_recipe(recipe(tiny_bert, data, fused(trained, "a", "b")), folder=tmp_path / "first")
    start = f'start_from = "{first.folder}"\nwarmup = 0.9\n'
    second = recipe(tiny_bert, data, fused(trained, "a", "b"), train=start)
    slow = second.model_copy(update={"train": second.train.model_copy(update={"learning_rate": 1e-12})})
    assert run_recipe(slow, folder=tmp_path / "second").result.scores == first.result.scores
    for more in (fused(trained, "b", "a"), stacked(trained, "a")):
        with pytest.raises(ConfigError, match="needs the same as here"):
            run_recipe(recipe(tiny_bert, data, more, train=start), folder=tmp_path / "third")


def test_runs_are_fused_and_stacked_on_by_their_folders(tmp_path: Path, tiny_bert: Path, data: Path) -> None:
    for name in ("one", "two"):
        run_recipe(recipe(tiny_bert, data, SEQ_BN), folder=tmp_path / "runs" / name)
    more = fused(tmp_path / "runs", "one", "two/task")
    run = run_recipe(recipe(tiny_bert, data, more), folder=tmp_path / "runs" / "both")
    assert {path.name for path in (run.folder / "task" / "adapters").iterdir()} == {"one", "two"}
    with pytest.raises(ModelError, match=r"only work together: needs one of them: .*task/adapters/one"):
        find_adapter(str(run.folder))
    run_recipe(recipe(tiny_bert, data, stacked(tmp_path / "runs", "one")), folder=tmp_path / "runs" / "third")


def wide_bert(adapter: Path, copy: Path) -> None:
    """A copy of an adapter that says it is for another width."""
    shutil.copytree(adapter, copy)
    about = json.loads((copy / "adapter_config.json").read_text())
    (copy / "adapter_config.json").write_text(json.dumps({**about, "hidden_size": about["hidden_size"] * 2}))


def test_what_cannot_work_is_refused_with_its_reason(
    tmp_path: Path, tiny_bert: Path, data: Path, trained: Path
) -> None:
    wide_bert(trained / "a", trained / "wide")
    shutil.copytree(trained / "a", tmp_path / "elsewhere" / "a")
    other = shutil.copytree(trained / "a", trained / "other")
    about = json.loads((other / "adapter_config.json").read_text())
    (other / "adapter_config.json").write_text(json.dumps({**about, "model_name": "minilm"}))
    shutil.copytree(trained / "a", trained / "trained")
    shutil.copytree(trained / "a", trained / "hollow", ignore=shutil.ignore_patterns("*.safetensors"))
    twice = json.dumps([str(trained / "a"), str(tmp_path / "elsewhere" / "a")])
    refused: list[tuple[str, type[CypherError], str]] = [
        (f"[arrangement]\nfuse = {twice}\n", ConfigError, "names an adapter 'a' by .*elsewhere.*under another name"),
        (stacked(trained, "trained"), ConfigError, "the adapter that is trained is called trained"),
        (fused(trained, "a", "wide"), ModelError, "is for width .*: needs an adapter for width"),
        (fused(trained, "a", "other"), ConfigError, "an adapter of minilm: needs one of .*the recipe's model"),
        (fused(trained, "a", "theirz"), ModelError, r"there is no adapter .*theirz; did you mean .*theirs\?"),
        (fused(trained, "a", "hollow"), ModelError, "hollow has no adapter.safetensors"),
        (fused(trained, "a", "lora"), ConfigError, "fuse with 'lora': a fusion weighs what is added"),
        (fused(trained, "a", "b", more="drop_in_training = 9\n"), ConfigError, "at most 2, the model's blocks"),
        ("[adapter]\npreset = 'prompt_tuning'\n[arrangement]\ndrop_in_training = 1\n", ConfigError, "no block has a"),
    ]
    for number, (more, error, said) in enumerate(refused):
        with pytest.raises(error, match=said) as caught:
            run_recipe(recipe(tiny_bert, data, more), folder=tmp_path / f"run{number}")
        assert "\n" not in str(caught.value)


def test_a_step_without_any_adapter_needs_something_else_to_train() -> None:
    model = Llama(LlamaConfig(vocabulary_size=9, width=8, n_layers=2, n_heads=2, n_key_value_heads=2, inner_width=16))
    adapter_of(adapter_config({"preset": "lora", "rank": 2})).attach(model, "a")
    freeze_all_but(model, "a")
    without_weights = HeadedModel(model, model.language_head())
    check_depth(without_weights, 1)
    with pytest.raises(ConfigError, match="at most 1: a step without any of them learns nothing"):
        check_depth(without_weights, 2)
    check_depth(HeadedModel(model, SpanHead(8)), 2)
    lower = Llama(model.config)
    adapter_of(adapter_config({"preset": "lora", "rank": 2, "leave_out": (1,)})).attach(lower, "a")
    freeze_all_but(lower, "a")
    with pytest.raises(ConfigError, match="at most 0"):
        check_depth(HeadedModel(lower, lower.language_head()), 1)


def test_a_recipe_is_mended_in_the_folder_of_the_run(
    tmp_path: Path, tiny_bert: Path, data: Path, trained: Path
) -> None:
    right = shutil.copytree(trained / "a", tmp_path / "right")
    shutil.rmtree(trained / "a")
    wide_bert(right, trained / "a")
    given = recipe(tiny_bert, data, fused(trained, "a", "b"))
    with pytest.raises(ModelError, match="is for width"):
        run_recipe(given, folder=tmp_path / "run")
    shutil.rmtree(trained / "a")
    right.rename(trained / "a")
    assert run_recipe(given, folder=tmp_path / "run").result.steps


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ("[arrangement]\nfuse = ['a']\n", "name another, or take stack_on"),
        ("[arrangement]\nstack_on = 'a'\n", "none is trained"),
        (SEQ_BN + "[arrangement]\nfuse = ['a', 'b']\n", "drop \\[adapter\\]"),
        (SEQ_BN + "[arrangement]\nfusion = { key = false }\n", "fuse names none"),
        ("[arrangement]\nfuse = ['a', 'b']\nfusion = { kye = false }\n", "did you mean arrangement.fusion.key"),
        (SEQ_BN + "[arrangement]\nstakc_on = 'a'\n", "did you mean arrangement.stack_on"),
        (SEQ_BN + "[arrangement]\nstack_on = 'a'\n[model.fresh]\narchitecture = 'bert'\n", "random weights"),
    ],
)
def test_a_recipe_that_cannot_be_meant(more: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        Recipe.from_toml("[task]\nkind = 'classify'\n[data]\ntrain = ['x']\n" + more)


def test_supports_knows_what_arrangements_need() -> None:
    assert supports(model="bert", adapter="bottleneck", task="classify", arrangement="fuse")
    assert (
        "where a sub-layer ends" in supports(model="llama", adapter="lora", task="classify", arrangement="fuse").reason
    )
    assert supports(model="seq2seq", adapter="lora", task="classify", arrangement="stack")
    assert "nothing to drop" in supports(model="bert", arrangement="drop").reason
    assert "no block" in supports(model="bert", adapter="prompt", arrangement="drop").reason
    assert "no arrangement is called fusion" in supports(model="bert", arrangement="fusion").reason
