"""``cypher adapters`` on real folders of tiny adapters: what it writes loads, and what it refuses it names."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from cypher.adapters.adapter import Adapter
from cypher.adapters.composition import Fuse
from cypher.adapters.exchange import load_folder
from cypher.adapters.folder import save_adapter
from cypher.adapters.folder_contents import describe
from cypher.adapters.fusion import add_fusion
from cypher.adapters.hub_folder import HubModel
from cypher.adapters.hub_setup import save_hub_setup
from cypher.adapters.methods import adapter_of
from cypher.cli.app import run
from cypher.config import adapter_config
from cypher.config.section import parse
from cypher.data.batch import Inputs
from cypher.hub.weights import read_safetensors, write_safetensors
from cypher.models.load import LoadedModel, load_model
from cypher.tasks.find_task import find_task
from cypher.tasks.reader_folder import load_reader
from cypher.tasks.registry import kind_of
from cypher.tasks.task_kind import Source
from cypher.tasks.use_task import predict

Make = Callable[..., Path]


@pytest.fixture
def make(tmp_path: Path, tiny_bert: Path) -> Make:
    """Write the folder of an adapter on the tiny encoder: ``make("a", preset="lora", rank=4, seed=1)``."""

    def write(folder: str, *, seed: int = 0, **values: Any) -> Path:
        loaded, config = load_model(str(tiny_bert)), adapter_config(values)
        adapter_of(config).attach(loaded.model, "trained")
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in Adapter.parameters_of(loaded.model, "trained").values():
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.2)
        path = tmp_path / folder
        save_adapter(path, loaded.model, "trained", config=config, model_name=str(tiny_bert), dtype=torch.float32)
        return path

    return write


def hidden_of(loaded: LoadedModel) -> Tensor:
    token_ids = torch.arange(5, 15).view(2, 5)
    with torch.no_grad():
        hidden: Tensor = loaded.model(Inputs(token_ids=token_ids, attention_mask=token_ids > 0)).hidden
    return hidden


def with_adapter(folder: Path, tiny_bert: Path) -> Tensor:
    loaded = load_model(str(tiny_bert))
    load_folder(describe(folder), loaded)
    return hidden_of(loaded)


def printed(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> Any:
    assert run(["adapters", *map(str, arguments), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def refused(capsys: pytest.CaptureFixture[str], code: int, *arguments: str | Path) -> str:
    assert run(["adapters", *map(str, arguments)]) == code
    found = capsys.readouterr()
    assert not found.out
    return found.err


def test_list_counts_on_bert_base_and_on_a_model(tiny_bert: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = {row["preset"]: row for row in printed(capsys, "list")["presets"]}
    assert (base["lora"]["n_parameters"], base["seq_bn"]["n_parameters"]) == (294_912, 894_528)
    assert (base["ia3"]["folds"], base["mam"]["folds"], base["mam"]["method"]) == (True, False, "prefix + bottleneck")
    tiny = {row["preset"]: row for row in printed(capsys, "list", "--model", tiny_bert)["presets"]}
    assert tiny["lora"]["n_parameters"] == 2 * 2 * 8 * 64
    assert tiny["compacter"]["n_parameters"] is None
    assert "multiples of 4" in tiny["compacter"]["reason"]


def test_info_of_every_format(make: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shipped = printed(capsys, "info", "minilm-qa")["adapter"]
    assert {key: shipped[key] for key in ("format", "name", "method", "model_name", "head")} == {
        "format": "cypher", "name": "trained", "method": "lora", "model_name": "minilm", "head": "extract_span",
    }  # fmt: skip
    ours = make("run/reader", preset="unipelt")
    assert printed(capsys, "info", tmp_path / "run")["adapter"]["method"] == "prefix + bottleneck + lora"
    theirs = printed(capsys, "convert", ours, tmp_path / "theirs")
    assert theirs == {"path": str(tmp_path / "theirs"), "format": "adapterhub", "notes": []}
    found = printed(capsys, "info", tmp_path / "theirs")["adapter"]
    assert (found["format"], found["method"], found["model_type"]) == (
        "adapterhub", "prefix_tuning + bottleneck + lora", "bert",
    )  # fmt: skip
    assert found["n_parameters"] == sum(
        value.numel() for value in read_safetensors(ours / "adapter.safetensors").values()
    )
    assert "holds no adapter" in refused(capsys, 1, "info", tmp_path)
    assert "there is no folder ./nowhere" in refused(capsys, 1, "info", "./nowhere")


def test_the_adapter_of_a_run_of_another_task_goes_without_its_head(
    make: Make, tiny_bert: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ours = make("run/task", preset="lora")
    (ours / "head_config.json").write_text(json.dumps({"kind": "classify", "config": {}, "calibration": {}}))
    write_safetensors(ours / "model_head.safetensors", {"label_scores.weight": torch.ones(3, 64)})
    done = printed(capsys, "convert", tmp_path / "run", tmp_path / "theirs")
    assert done["notes"] == ["the classify head is left out: only a reader's is converted"]
    assert not list((tmp_path / "theirs").glob("*head*"))
    torch.testing.assert_close(with_adapter(tmp_path / "theirs", tiny_bert), with_adapter(ours, tiny_bert))


def test_merge_keeps_the_head_of_another_task(
    make: Make, tiny_bert: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ours, rows = make("run/task", preset="lora"), tmp_path / "rows.jsonl"
    about = {"kind": "classify", "config": {"labels": ["a", "b"]}, "calibration": {}}
    loaded, kind = load_model(str(tiny_bert)), kind_of("classify")
    head = kind.build(parse(kind.config, about["config"], where="the test"), loaded).head(loaded.model)
    torch.manual_seed(1)
    weights = {name: torch.randn(value.shape) for name, value in head.state_dict().items()}
    write_safetensors(ours / "model_head.safetensors", weights)
    (ours / "head_config.json").write_text(json.dumps(about))
    rows.write_text('{"text": "one two"}\n{"text": "three"}\n')
    done = printed(capsys, "merge", tmp_path / "run", tmp_path / "merged")
    assert done["transformers_class"] == "AutoModel"
    assert "classify head is beside the model" in done["notes"][0]
    answers = [list(predict(find_task(tmp_path / name), Source(path=rows))) for name in ("run", "merged")]
    assert answers[1] == [{**one, "probability": pytest.approx(one["probability"], abs=1e-4)} for one in answers[0]]


@pytest.mark.parametrize("preset", ["lora", "double_seq_bn", "prefix_tuning_flat", "loreft", "unipelt"])
def test_convert_there_and_back(
    make: Make, tmp_path: Path, tiny_bert: Path, preset: str, capsys: pytest.CaptureFixture[str]
) -> None:
    ours = make("ours", preset=preset)
    expected = with_adapter(ours, tiny_bert)
    printed(capsys, "convert", ours, tmp_path / "theirs")
    printed(capsys, "convert", tmp_path / "theirs", tmp_path / "back")
    assert describe(tmp_path / "back").format == "cypher"
    for folder in ("theirs", "back"):
        torch.testing.assert_close(with_adapter(tmp_path / folder, tiny_bert), expected, atol=1e-5, rtol=1e-5)
    assert "is not empty" in refused(capsys, 2, "convert", ours, tmp_path / "back")
    assert "in the format cypher already" in refused(capsys, 2, "convert", ours, tmp_path / "new", "--to", "cypher")


def test_convert_refuses_what_has_no_counterpart(
    make: Make, tmp_path: Path, tiny_bert: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "before its activation" in refused(capsys, 1, "convert", make("ia3", preset="ia3"), tmp_path / "out")
    output = make("output", method="lora", targets=("output",))
    assert "a change of output" in refused(capsys, 1, "convert", output, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_pickles_are_converted_as_plain_tensors(
    make: Make, tmp_path: Path, tiny_bert: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ours, theirs = make("ours", preset="seq_bn", reduction_factor=4), tmp_path / "theirs"
    printed(capsys, "convert", ours, theirs)
    torch.save(read_safetensors(theirs / "adapter.safetensors"), theirs / "pytorch_adapter.bin")
    (theirs / "adapter.safetensors").unlink()
    assert printed(capsys, "info", theirs)["adapter"]["has_pickles"] is True
    assert f"cypher adapters convert {theirs} OUT" in refused(capsys, 1, "merge", theirs, tmp_path / "merged")
    done = printed(capsys, "convert", theirs, tmp_path / "safe")
    assert (done["format"], len(done["notes"])) == ("adapterhub", 1)
    assert "weights_only" in done["notes"][0]
    printed(capsys, "convert", theirs, tmp_path / "back", "--to", "cypher")
    for folder in ("safe", "back"):
        torch.testing.assert_close(with_adapter(tmp_path / folder, tiny_bert), with_adapter(ours, tiny_bert))


class _RunsCode:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("ran",)


def test_a_pickle_with_code_is_refused_and_not_run(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    printed(capsys, "convert", make("ours", preset="lora"), tmp_path / "theirs")
    (tmp_path / "theirs" / "adapter.safetensors").unlink()
    torch.save({"weight": _RunsCode()}, tmp_path / "theirs" / "pytorch_adapter.bin", pickle_module=pickle)
    line = refused(capsys, 1, "convert", tmp_path / "theirs", tmp_path / "out")
    assert "holds other things than tensors" in line
    assert not (tmp_path / "ran").exists()
    assert not (tmp_path / "out").exists()


def test_a_reader_keeps_its_head(
    make: Make, tmp_path: Path, tiny_bert: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    reader = make("reader", preset="lora")
    head = {"scores.weight": torch.randn(2, 32), "scores.bias": torch.randn(2)}
    write_safetensors(reader / "model_head.safetensors", head)
    about = {"kind": "extract_span", "config": {}, "calibration": {"scale": 0.5, "bias": 0.0, "threshold": 0.0}}
    (reader / "head_config.json").write_text(json.dumps(about))
    notes = printed(capsys, "convert", reader, tmp_path / "theirs")["notes"]
    assert notes == ["the calibration of scores is left out: the library keeps none"]
    assert printed(capsys, "info", tmp_path / "theirs")["adapter"]["head"] == "question_answering"
    notes = printed(capsys, "convert", tmp_path / "theirs", tmp_path / "back")["notes"]
    assert notes == ["its scores are not calibrated: the library keeps no calibration"]
    back = load_reader(tmp_path / "back")
    torch.testing.assert_close(back.model.head.state_dict(), head)
    shutil.copytree(tmp_path / "theirs", tmp_path / "pickled")
    for safe, name in (("adapter", "pytorch_adapter.bin"), ("model_head", "pytorch_model_head.bin")):
        path = tmp_path / "pickled" / f"{safe}.safetensors"
        torch.save(read_safetensors(path), path.with_name(name))
        path.unlink()
    notes = printed(capsys, "convert", tmp_path / "pickled", tmp_path / "unpickled", "--to", "cypher")["notes"]
    assert [line.rpartition("/")[2] for line in notes[:2]] == [
        f"{name} was read as plain tensors (weights_only)" for name in ("pytorch_adapter.bin", "pytorch_model_head.bin")
    ]
    torch.testing.assert_close(load_reader(tmp_path / "unpickled").model.head.state_dict(), head)
    said = json.loads((tmp_path / "theirs" / "head_config.json").read_text())
    said["config"]["head_type"] = "tagging"
    (tmp_path / "theirs" / "head_config.json").write_text(json.dumps(said))
    notes = printed(capsys, "convert", tmp_path / "theirs", tmp_path / "without")["notes"]
    assert notes == ["the tagging head of 1 layers is left out: there is no such head here"]
    assert not (tmp_path / "without" / "model_head.safetensors").exists()


def test_average(make: Make, tmp_path: Path, tiny_bert: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = (make(name, preset="lora", rank=4, alpha=8, seed=seed) for seed, name in enumerate("ab"))
    weighed = ("--weight", "3", "--weight", "1")
    printed(capsys, "average", first, second, tmp_path / "linear", *weighed)
    made, *given = (read_safetensors(path / "adapter.safetensors") for path in (tmp_path / "linear", first, second))
    for path, value in given[0].items():
        mean = 0.75 * value + 0.25 * given[1][path]
        torch.testing.assert_close(made[path.replace(".trained.", ".average.")], mean)
    by_svd = printed(
        capsys, "average", first, second, tmp_path / "svd", "--strategy", "lora_delta_w_svd", "--rank", "8", *weighed
    )
    assert (by_svd["config"]["rank"], by_svd["config"]["alpha"]) == (8, 16)
    made = read_safetensors(tmp_path / "svd" / "adapter.safetensors")
    for path in given[0]:
        if path.endswith(".up"):
            down, new = path.removesuffix("up") + "down", path.replace(".trained.", ".average.")
            mean = 0.75 * given[0][path] @ given[0][down] + 0.25 * given[1][path] @ given[1][down]
            torch.testing.assert_close(made[new] @ made[new.removesuffix("up") + "down"], mean, atol=1e-5, rtol=1e-5)
    other = make("other", preset="lora", rank=2)
    assert "differ in rank" in refused(capsys, 2, "average", first, other, tmp_path / "out")
    assert "one weight each" in refused(capsys, 2, "average", first, second, tmp_path / "out", "--weight", "1")
    bottleneck = make("bottleneck", preset="seq_bn")
    line = refused(capsys, 2, "average", bottleneck, tmp_path / "out", "--strategy", "lora_linear_only_negate_b")
    assert "lora without a gate" in line


@pytest.mark.parametrize("preset", ["lora", "dora", "vera", "ia3"])
def test_merge_writes_a_model_that_computes_the_same(
    make: Make, tmp_path: Path, tiny_bert: Path, preset: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make("adapter", preset=preset)
    expected = with_adapter(folder, tiny_bert)
    assert printed(capsys, "merge", folder, tmp_path / "merged")["transformers_class"] == "AutoModel"
    torch.testing.assert_close(hidden_of(load_model(str(tmp_path / "merged"))), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    "values", [{"preset": "seq_bn"}, {"method": "union", "parts": [{"preset": "lora"}, {"preset": "seq_bn"}]}]
)
def test_merge_refuses_what_does_not_fold(
    make: Make, tmp_path: Path, values: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    line = refused(capsys, 1, "merge", make("adapter", **values), tmp_path / "merged")
    assert "it sits between its layers, at segments.encoder.0.feedforward_join" in line
    assert not (tmp_path / "merged").exists()


def test_info_of_a_set_up(tmp_path: Path, tiny_bert: Path, capsys: pytest.CaptureFixture[str]) -> None:
    loaded, config = load_model(str(tiny_bert)), adapter_config({"preset": "seq_bn"})
    for name in ("news", "reviews"):
        adapter_of(config).attach(loaded.model, name)
    fuse = Fuse("news", "reviews")
    add_fusion(loaded.model, fuse)
    of = HubModel(name=str(tiny_bert), type="bert")
    save_hub_setup(tmp_path / "both", loaded.model, fuse, configs=dict.fromkeys(("news", "reviews"), config), of=of)
    found = printed(capsys, "info", tmp_path / "both")["adapter"]
    assert (found["format"], found["composition"]) == ("adapterhub set-up", "Fuse('news', 'reviews')")
    assert [part["name"] for part in found["parts"]] == ["news", "news,reviews", "reviews"]
    assert "needs the folder of one adapter" in refused(capsys, 1, "merge", tmp_path / "both", tmp_path / "out")


@pytest.mark.parametrize("command", ["list", "info", "convert", "average", "merge"])
def test_help_has_an_example(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["adapters", command, "--help"]) == 0
    assert f"Example: cypher adapters {command}" in " ".join(capsys.readouterr().out.split())
