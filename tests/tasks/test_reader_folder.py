"""A reader on disk: what comes back is what was saved, and transformers computes the same from an export."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import transformers

from cypher.adapters.lora import Lora
from cypher.config import ExtractSpanConfig, LoraConfig
from cypher.data.batch import Inputs
from cypher.errors import ConfigError, ModelError
from cypher.hub.weights import write_safetensors
from cypher.models.headed import HeadedModel
from cypher.models.load import load_model
from cypher.tasks.calibration import Calibration
from cypher.tasks.extract_span import ExtractSpan
from cypher.tasks.reader_folder import SpanReader, export_reader, load_reader, save_reader

FAMILIES = {"bert": {}, "roberta": {"type_vocab_size": 1, "pad_token_id": 1}, "xlm-roberta": {"type_vocab_size": 1}}
QUESTION, PASSAGE = "who was it", "it was the king of the river"


def make_reader(model: Path, adapter: LoraConfig | None) -> SpanReader:
    """With weights that differ from those a new adapter and head begin with."""
    loaded = load_model(str(model))
    config = ExtractSpanConfig(max_length=48, stride=12, max_question_tokens=20)
    task = ExtractSpan(config, tokenizer=loaded.tokenizer, special=loaded.special, segments=loaded.uses_segment_ids)
    if adapter is not None:
        Lora(adapter).attach(loaded.model, "tiny")
    headed = HeadedModel(loaded.model, task.head(loaded.model)).eval()
    for parameter in headed.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
        # Saved in half precision, so that only such values come back as they were.
        parameter.data = parameter.data.half().float()
    calibration = Calibration(scale=0.3, bias=-0.2, threshold=-1.0)
    return SpanReader(model=headed, task=task, calibration=calibration, loaded=loaded)


def inputs_of(reader: SpanReader) -> Inputs:
    encoded = reader.loaded.tokenizer.encode(QUESTION, PASSAGE)
    ids = torch.tensor([encoded.ids])
    segments = torch.tensor([encoded.type_ids]) if reader.loaded.uses_segment_ids else None
    return Inputs(token_ids=ids, attention_mask=torch.ones_like(ids).bool(), segment_ids=segments)


@pytest.mark.parametrize("adapter", [LoraConfig(rank=2), None], ids=["lora", "full"])
def test_what_is_saved_comes_back(tiny_bert: Path, tmp_path: Path, adapter: LoraConfig | None) -> None:
    reader = make_reader(tiny_bert, adapter)
    if adapter is not None:  # the frozen model itself is not saved
        reader.loaded.model.load_state_dict(load_model(str(tiny_bert)).model.state_dict(), strict=False)
    save_reader(tmp_path / "out", reader, adapter_name="tiny", adapter=adapter, model_name=str(tiny_bert))
    again = load_reader(tmp_path / "out")
    assert (again.calibration, again.task.config) == (reader.calibration, reader.task.config)
    with torch.inference_mode():
        expected, found = reader.model(inputs_of(reader))[0], again.model(inputs_of(again))[0]
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    assert not list((tmp_path / "out").rglob("*.bin"))


@pytest.mark.parametrize(
    ("file", "values", "said"),
    [
        ("head_config.json", {"config": {}}, "head_config.json is no trained task's (no 'calibration')"),
        ("head_config.json", {"config": {"max_length": 0}, "calibration": {}}, "its config: max_length = 0"),
        ("head_config.json", {"config": [], "calibration": {}}, "head_config.json is no trained task's (its config"),
        ("head_config.json", {"config": {}, "calibration": {"slope": 1.0}}, "'slope'"),
        ("adapter_config.json", {}, "adapter_config.json is no adapter's (no 'model_name')"),
        ("adapter_config.json", {"config": {"method": "lora"}}, "adapter_config.json is no adapter's (no 'name')"),
        ("adapter_config.json", {"config": {"rank": 0}, "name": "tiny"}, "adapter: rank = 0"),
    ],
)
def test_a_malformed_file_is_named(file: str, values: dict[str, object], said: str, tiny_bert: Path, tmp_path: Path):
    reader, config = make_reader(tiny_bert, LoraConfig(rank=2)), LoraConfig(rank=2)
    save_reader(tmp_path, reader, adapter_name="tiny", adapter=config, model_name=str(tiny_bert))
    about = {"model_name": str(tiny_bert)} if "config" in values and file.startswith("adapter") else {}
    (tmp_path / file).write_text(json.dumps({**about, **values}))
    with pytest.raises(ModelError) as caught:
        load_reader(tmp_path)
    assert said in str(caught.value)
    assert file in str(caught.value)


def test_a_head_of_another_shape_is_named(tiny_bert: Path, tmp_path: Path) -> None:
    reader, config = make_reader(tiny_bert, LoraConfig(rank=2)), LoraConfig(rank=2)
    save_reader(tmp_path, reader, adapter_name="tiny", adapter=config, model_name=str(tiny_bert))
    write_safetensors(tmp_path / "model_head.safetensors", {"scores.weight": torch.zeros(2, 7)})
    with pytest.raises(ModelError, match=r"model_head.safetensors does not fit the model"):
        load_reader(tmp_path)


@pytest.mark.parametrize("family", FAMILIES)
def test_transformers_computes_the_same_from_an_export(
    make_tiny_bert: Callable[..., Path], tmp_path: Path, family: str
) -> None:
    reader = make_reader(make_tiny_bert(model_type=family, **FAMILIES[family]), LoraConfig(rank=2))
    inputs = inputs_of(reader)
    with torch.inference_mode():
        expected = reader.model(inputs)[0]
    export_reader(reader, tmp_path / "out")
    theirs, problems = transformers.AutoModelForQuestionAnswering.from_pretrained(
        tmp_path / "out", output_loading_info=True
    )
    assert not any(problems.values()), problems
    named = {"input_ids": inputs.token_ids, "attention_mask": inputs.attention_mask.long()}
    if inputs.segment_ids is not None:
        named["token_type_ids"] = inputs.segment_ids
    with torch.inference_mode():
        found = theirs.eval()(**named)
    torch.testing.assert_close(torch.stack([found.start_logits, found.end_logits], -1), expected, atol=1e-5, rtol=1e-5)
    with pytest.raises(ConfigError, match="not empty"):
        export_reader(reader, tmp_path / "out")
    assert json.loads((tmp_path / "out" / "config.json").read_text())["architectures"] == [type(theirs).__name__]
