"""A trained span reader on disk: its adapter, its head, and how to read its scores."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import torch

from cypher.adapters.adapter import Adapter
from cypher.adapters.folder import load_adapter, model_of, read_json, save_adapter
from cypher.config import AdapterConfig, ExtractSpanConfig
from cypher.config.section import parse
from cypher.errors import ConfigError, ModelError, first_line
from cypher.files import write_text
from cypher.hub.weights import read_safetensors, write_safetensors
from cypher.models.load import LoadedModel, export_model, load_model, read_config
from cypher.tasks.calibration import Calibration
from cypher.tasks.extract_span import ExtractSpan
from cypher.train.task import HeadedModel

# By model_type: what transformers calls the encoder in its class for question answering, and that class.
_QUESTION_ANSWERING = {
    "bert": ("bert", "BertForQuestionAnswering"),
    "roberta": ("roberta", "RobertaForQuestionAnswering"),
    "xlm-roberta": ("roberta", "XLMRobertaForQuestionAnswering"),
}


@dataclass(frozen=True, kw_only=True)
class SpanReader:
    """A model that answers, with its task and calibration.

    Args:
        model: In evaluation mode, adapter attached.
        task: Windows and decoding.
        calibration: From scores to probabilities and "no answer".
        loaded: The model it stands on.
    """

    model: HeadedModel
    task: ExtractSpan
    calibration: Calibration
    loaded: LoadedModel


def save_reader(
    folder: Path,
    reader: SpanReader,
    *,
    adapter_name: str,
    adapter: AdapterConfig | None,
    model_name: str,
) -> None:
    """Write adapter, head and calibration, in fp16 and JSON; without an adapter the whole model goes to ``model/``.

    Args:
        folder: Made if it is absent; a reader in it is replaced.
        reader: Trained.
        adapter_name: It is attached under.
        adapter: Its configuration; ``None`` when every weight was trained.
        model_name: What was trained on, as the catalogue names it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    model, task = reader.model, reader.task.config
    if adapter is not None:
        save_adapter(folder, model.model, adapter_name, config=adapter, model_name=model_name)
    else:
        shutil.rmtree(folder / "model", ignore_errors=True)
        export_model(reader.loaded, folder / "model")
    write_safetensors(
        folder / "model_head.safetensors",
        {name: value.to(torch.float16) for name, value in model.head.state_dict().items()},
    )
    about = {"kind": task.kind, "config": task.model_dump(mode="json"), "calibration": reader.calibration.to_dict()}
    write_text(folder / "head_config.json", json.dumps(about, indent=1) + "\n")


def load_reader(folder: Path, *, offline: bool | None = None) -> SpanReader:
    """Load a saved reader onto the model it names.

    Raises:
        ModelError: The folder is no reader, or its model cannot be found.
    """
    about = read_json(folder / "head_config.json")
    try:
        config: ExtractSpanConfig = parse(ExtractSpanConfig, about["config"], where="its config")
        calibration = Calibration(**about["calibration"])
    except (KeyError, TypeError, ConfigError) as error:
        raise ModelError(f"{folder / 'head_config.json'} is no reader's ({first_line(error)})") from error
    if (folder / "adapter_config.json").exists():
        loaded = load_model(model_of(folder), offline=offline)
        load_adapter(folder, loaded.model)
    else:
        loaded = load_model(str(folder / "model"), offline=offline)
    task = ExtractSpan(
        config,
        tokenizer=loaded.tokenizer,
        special=loaded.special,
        segments=loaded.uses_segment_ids,
    )
    head = task.head(loaded.model)
    try:
        head.load_state_dict(
            {name: value.float() for name, value in read_safetensors(folder / "model_head.safetensors").items()}
        )
    except RuntimeError as error:
        raise ModelError(
            f"{folder / 'model_head.safetensors'} does not fit the model", needed="its own head"
        ) from error
    return SpanReader(
        model=HeadedModel(loaded.model, head).eval(),
        task=task,
        calibration=calibration,
        loaded=loaded,
    )


def export_reader(reader: SpanReader, folder: Path) -> None:
    """Write a folder that ``transformers.AutoModelForQuestionAnswering.from_pretrained`` loads.

    Args:
        reader: Its adapter is merged into its weights, here too.
        folder: New or empty.

    Raises:
        ConfigError: The folder has files.
    """
    Adapter.merge(reader.loaded.model)
    export_model(reader.loaded, folder)
    config = read_config(folder)
    family, architecture = _QUESTION_ANSWERING[config["model_type"]]
    # transformers' classes with a head keep the encoder under its family's name, and this one has no other head.
    others = ("pooler.", "cls.")
    encoder = {name: tensor for name, tensor in read_safetensors(folder).items() if not name.startswith(others)}
    head = {name.replace("scores", "qa_outputs"): tensor for name, tensor in reader.model.head.state_dict().items()}
    write_safetensors(
        folder / "model.safetensors", {**{f"{family}.{name}": tensor for name, tensor in encoder.items()}, **head}
    )
    config["architectures"] = [architecture]
    write_text(folder / "config.json", json.dumps(config, indent=1) + "\n")
