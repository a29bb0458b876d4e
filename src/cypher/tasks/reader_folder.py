"""A trained span reader on disk: its adapter, its head, and how to read its scores."""

from __future__ import annotations

import json
import shutil
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

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
from cypher.adapters.folder import read_json
from cypher.adapters.folder_contents import OURS, describe
from cypher.adapters.hub_folder import HubModel
from cypher.adapters.hub_heads import HubHead, load_hub_head, save_hub_head
from cypher.adapters.hub_pickle import convert_pickles
from cypher.config import AdapterConfig, ExtractSpanConfig
from cypher.errors import ModelError, first_line
from cypher.files import write_text
from cypher.hub.weights import read_safetensors, write_safetensors
from cypher.models.headed import HeadedModel
from cypher.models.load import LoadedModel, export_model, read_config
from cypher.tasks.calibration import Calibration
from cypher.tasks.extract_span import ExtractSpan
from cypher.tasks.task_folder import TrainedTask, load_task, save_task

# By model_type: what transformers calls the encoder in its class for question answering, and that class.
_QUESTION_ANSWERING = {
    "bert": ("bert", "BertForQuestionAnswering"),
    "roberta": ("roberta", "RobertaForQuestionAnswering"),
    "xlm-roberta": ("roberta", "XLMRobertaForQuestionAnswering"),
}

_HUB_HEAD = "question_answering"
# What a reader's folder calls its head; the first ones had no name for it.
_READER_HEADS = ("extract_span", "unnamed")


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
    trained = TrainedTask(
        model=reader.model,
        task=reader.task,
        config=reader.task.config,
        calibration=reader.calibration.to_dict(),
        loaded=reader.loaded,
    )
    save_task(folder, trained, adapter_name=adapter_name, adapter=adapter, model_name=model_name)


def load_reader(folder: Path, *, offline: bool | None = None) -> SpanReader:
    """Load a saved reader onto the model it names.

    Raises:
        ModelError: The folder is no reader, or its model cannot be found.
    """
    trained = load_task(folder, offline=offline)
    if not isinstance(trained.task, ExtractSpan):
        raise ModelError(f"{folder} holds a task of kind {trained.task.kind}", needed="extract_span, a reader's")
    try:
        calibration = Calibration(**trained.calibration)
    except TypeError as error:
        raise ModelError(f"{folder / 'head_config.json'} is no reader's ({first_line(error)})") from error
    return SpanReader(
        model=trained.model,
        task=trained.task,
        calibration=calibration,
        loaded=trained.loaded,
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


@dataclass(frozen=True, kw_only=True)
class Merged:
    """What was written.

    Args:
        transformers_class: That loads it.
        notes: What became of the head.
    """

    transformers_class: str
    notes: tuple[str, ...] = ()


def merge_reader(folder: Path, out: Path, *, model_name: str | None = None) -> Merged:
    """Fold an adapter into its model and write that for transformers, with its head.

    A reader's head becomes part of the model. transformers has none like those of other tasks: they are written beside
    the model, where :func:`cypher.tasks.task_folder.load_task` finds them. Heads of AdapterHub's library are left out.

    Args:
        folder: Of a reader, or of an adapter of either format.
        out: New or empty.
        model_name: Another name or folder of the model an adapter without a head was trained on.

    Raises:
        ConfigError: ``out`` has files.
        ModelError: The method does not fold, with the reason.
    """
    contents = describe(folder)
    if contents.format == OURS and contents.head in _READER_HEADS:
        export_reader(load_reader(folder), out)
        return Merged(transformers_class="AutoModelForQuestionAnswering")
    merge_folder(folder, out, model_name=model_name)
    if contents.head is None:
        return Merged(transformers_class="AutoModel")
    if contents.format != OURS:
        note = f"the {contents.head} head is left out: heads of AdapterHub's library are not merged"
        return Merged(transformers_class="AutoModel", notes=(note,))
    for name in ("model_head.safetensors", "head_config.json"):
        shutil.copyfile(folder / name, out / name)
    note = (
        f"the {contents.head} head is beside the model: cypher evaluate and predict read both, transformers the model"
    )
    return Merged(transformers_class="AutoModel", notes=(note,))


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
    if contents.format == OURS and contents.head not in _READER_HEADS:
        return replace(done, notes=(*done.notes, f"the {contents.head} head is left out: only a reader's is converted"))
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
