"""Folders of published weights: loaded whole or refused with what is wrong; written so that transformers loads them."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import transformers

from cypher.adapters.adapter import Adapter
from cypher.adapters.lora import Lora
from cypher.config import LoraConfig
from cypher.data.batch import pad_inputs
from cypher.errors import ConfigError, DataError, ModelError
from cypher.hub.weights import read_safetensors, write_safetensors
from cypher.models.load import Dropout, export_model, load_model


@pytest.fixture
def folder(tiny_bert: Path, tmp_path: Path) -> Path:
    """A copy that a test may break."""
    copy = tmp_path / "model"
    shutil.copytree(tiny_bert, copy)
    return copy


def test_loads_and_exports_a_folder_that_transformers_loads(folder: Path, tmp_path: Path) -> None:
    loaded = load_model(str(folder))
    Lora(LoraConfig(rank=2)).attach(loaded.model, "mine")
    for parameter in Adapter.parameters_of(loaded.model, "mine").values():
        torch.nn.init.normal_(parameter, std=0.3)
    with pytest.raises(ConfigError, match="merge adapters before export"):
        export_model(loaded, tmp_path / "early")
    Adapter.merge(loaded.model)
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text("{}")
    export_model(loaded, tmp_path / "exported")
    theirs = transformers.AutoModel.from_pretrained(tmp_path / "exported").eval()
    inputs = pad_inputs([[2, 5, 6, 7, 3], [2, 8, 3]], pad_id=0)
    with torch.inference_mode():
        expected = theirs(inputs.token_ids, attention_mask=inputs.attention_mask.long()).last_hidden_state
        ours = loaded.model(inputs).hidden
    kept = inputs.attention_mask
    torch.testing.assert_close(ours[kept], expected[kept], atol=1e-5, rtol=1e-5)
    assert (tmp_path / "exported" / "1_Pooling" / "config.json").exists()
    with pytest.raises(ConfigError, match="is not empty"):
        export_model(loaded, tmp_path / "exported")


@pytest.mark.parametrize(
    ("place", "kind", "said"),
    [("file", ConfigError, "is a file; give a new folder"), ("file/under", DataError, "cannot be written")],
)
def test_an_export_into_a_file_says_so(
    place: str, kind: type[Exception], said: str, tiny_bert: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("a file")
    with pytest.raises(kind, match=said):
        export_model(load_model(str(tiny_bert)), tmp_path / place)


def test_half_precision_weights_become_fp32_and_the_file_stays_as_it_was(folder: Path) -> None:
    path = folder / "model.safetensors"
    write_safetensors(path, {name: value.half() for name, value in read_safetensors(path).items()})
    before = path.read_bytes()
    model = load_model(str(folder), dropout=Dropout(dropout=0.2)).model
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    assert path.read_bytes() == before


def break_missing(folder: Path) -> None:
    tensors = read_safetensors(folder)
    write_safetensors(
        folder / "model.safetensors", {n: v.clone() for n, v in tensors.items() if "layer.0.output" not in n}
    )


def break_shape(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "vocab_size": config["vocab_size"] + 1}))


def break_family(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "gpt2"}))


def break_json(folder: Path) -> None:
    (folder / "config.json").write_text("{")


def break_list(folder: Path) -> None:
    (folder / "config.json").write_text("[]")


def break_key(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    del config["hidden_size"]
    (folder / "config.json").write_text(json.dumps(config))


def break_llama(folder: Path) -> None:
    (folder / "config.json").write_text('{"model_type": "llama"}')


def break_type(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "hidden_size": "wide"}))


def break_heads(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "num_attention_heads": 5}))


def break_pickle(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (break_missing, "lacks 4 of 39 tensors"),
        (break_shape, "embeddings.token.weight is"),
        (break_family, "model_type 'gpt2'"),
        (break_json, "config.json cannot be read"),
        (break_list, "config.json holds a list"),
        (break_key, "without 'hidden_size'"),
        (break_llama, "without 'hidden_size'"),
        (break_type, "config.json: width = 'wide'"),
        (break_heads, "config.json gives sizes that no bert has"),
        (break_pickle, "pickle"),
    ],
)
def test_damage_is_named_in_one_line(damage, said: str, folder: Path) -> None:
    damage(folder)
    with pytest.raises(ModelError) as caught:
        load_model(str(folder))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.real_weights
def test_real_minilm_equals_transformers(minilm_folder: Path) -> None:
    loaded = load_model(str(minilm_folder))
    theirs = transformers.AutoModel.from_pretrained(minilm_folder).eval()
    texts = ["Where is the river?", "The river rises in the hills and reaches the sea after 300 kilometres.", "No."]
    inputs = pad_inputs([loaded.tokenizer.encode(text).ids for text in texts], pad_id=loaded.special.pad_id)
    with torch.inference_mode():
        expected = theirs(inputs.token_ids, attention_mask=inputs.attention_mask.long()).last_hidden_state
        ours = loaded.model(inputs).hidden
    kept = inputs.attention_mask
    torch.testing.assert_close(ours[kept], expected[kept], atol=1e-5, rtol=1e-5)


def test_loading_does_not_import_the_compiler(tiny_bert: Path) -> None:
    """It would add more than a second to every command."""
    code = f"import sys; from cypher.models.load import load_model; load_model({str(tiny_bert)!r})"
    ended = subprocess.run(
        [sys.executable, "-c", code + "; print('torch._dynamo' in sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert ended.stdout.strip() == "False"
