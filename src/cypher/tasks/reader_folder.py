"""A trained span reader on disk: its adapter, its head, and how to read its scores."""

from __future__ import annotations

import json
import shutil
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from cypher.adapters.adapter import Adapter
from cypher.adapters.arrangement import attached_names
from cypher.adapters.exchange import (
    Exchanged,
    FolderFormat,
    convert_folder,
    converted_notes,
    merge_folder,
    refuse_plugs,
)
from cypher.adapters.folder import load_adapter, read_json, save_adapter
from cypher.adapters.folder_contents import OURS, describe
from cypher.adapters.hub_folder import HubModel
from cypher.adapters.hub_heads import HubHead, load_hub_head, save_hub_head
from cypher.adapters.hub_pickle import convert_pickles
from cypher.config import AdapterConfig, ExtractSpanConfig
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

_HUB_HEAD = "question_answering"


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
    if (folder / "adapter_config.json").exists():
        loaded = load_model(str(read_json(folder / "adapter_config.json")["model_name"]), offline=offline)
        load_adapter(folder, loaded.model)
    else:
        loaded = load_model(str(folder / "model"), offline=offline)
    task = ExtractSpan(
        ExtractSpanConfig.model_validate(about["config"]),
        tokenizer=loaded.tokenizer,
        special=loaded.special,
        segments=loaded.uses_segment_ids,
    )
    head = task.head(loaded.model)
    head.load_state_dict(
        {name: value.float() for name, value in read_safetensors(folder / "model_head.safetensors").items()}
    )
    return SpanReader(
        model=HeadedModel(loaded.model, head).eval(),
        task=task,
        calibration=Calibration(**about["calibration"]),
        loaded=loaded,
    )


def export_reader(reader: SpanReader, folder: Path) -> None:
    """Write a folder that ``transformers.AutoModelForQuestionAnswering.from_pretrained`` loads.

    Args:
        reader: Its adapter is merged into its weights, here too.
        folder: New or empty.

    Raises:
        ConfigError: The folder has files.
        ModelError: The adapter does not fold, with the reason.
    """
    for name in attached_names(reader.loaded.model):
        refuse_plugs(reader.loaded, name, "the reader's adapter")
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


def merge_reader(folder: Path, out: Path, *, model_name: str | None = None) -> str:
    """Fold an adapter, with its head if it is a reader, into its model and write that for transformers.

    Args:
        folder: Of a reader, or of an adapter of either format.
        out: New or empty.
        model_name: Another name or folder of the model an adapter without a head was trained on.

    Returns:
        The class of transformers that loads it.

    Raises:
        ConfigError: ``out`` has files.
        ModelError: The method does not fold, with the reason.
    """
    contents = describe(folder)
    if contents.format == OURS and contents.head is not None:
        export_reader(load_reader(folder), out)
        return "AutoModelForQuestionAnswering"
    merge_folder(folder, out, model_name=model_name)
    return "AutoModel"


def convert_reader(
    folder: Path, out: Path, to: FolderFormat | None = None, *, model_name: str | None = None
) -> Exchanged:
    """Convert an adapter with its head; arguments and errors as of :func:`cypher.adapters.exchange.convert_folder`.

    A reader's head is the library's for question answering, in both directions. AdapterHub's folders keep no
    calibration, so a reader made of one reads its scores as they are. A head of another kind is left out, and the
    notes say so.
    """
    contents = describe(folder)
    if contents.has_pickles and to == OURS:
        with tempfile.TemporaryDirectory() as beside:
            safe = Path(beside) / "adapter"
            notes = converted_notes(convert_pickles(folder, safe))
            done = convert_reader(safe, out, to, model_name=model_name)
        return replace(done, notes=(*notes, *done.notes))
    done = convert_folder(folder, out, to, model_name=model_name)
    if contents.head is None or contents.has_pickles:
        return done
    if contents.format == OURS:
        about, tensors = read_json(out / "adapter_config.json"), read_safetensors(folder / "model_head.safetensors")
        layer = (tensors["scores.weight"], tensors["scores.bias"])
        of = HubModel(name=about["model_name"], type=about["model_type"])
        head = HubHead(name=about["name"], kind=_HUB_HEAD, layers=(layer,))
        save_hub_head(out, about["hidden_size"], head, of=of)
        return replace(done, notes=(*done.notes, "the calibration of scores is left out: the library keeps none"))
    head = load_hub_head(folder)
    weight, bias = head.layers[-1]
    if head.kind != _HUB_HEAD or len(head.layers) != 1 or len(weight) != 2 or bias is None:
        kind = f"{head.kind} head of {len(head.layers)} layers"
        return replace(done, notes=(*done.notes, f"the {kind} is left out: there is no such head here"))
    write_safetensors(out / "model_head.safetensors", {"scores.weight": weight, "scores.bias": bias})
    # One question for all scores: is a span better than the first token, which stands for no answer?
    task, plain = ExtractSpanConfig(), Calibration(scale=1.0)
    said = {"kind": task.kind, "config": task.model_dump(mode="json"), "calibration": plain.to_dict()}
    write_text(out / "head_config.json", json.dumps(said, indent=1) + "\n")
    return replace(done, notes=(*done.notes, "its scores are not calibrated: the library keeps no calibration"))
