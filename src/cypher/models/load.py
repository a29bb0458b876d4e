"""From a folder of published weights to a model, and back."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from tokenizers import Tokenizer
from torch import Tensor

from cypher.config.section import refusal
from cypher.errors import ConfigError, DataError, ModelError, first_line
from cypher.files import read_json
from cypher.hub.cache import writing
from cypher.hub.download import FetchProgress
from cypher.hub.fetch import resolve
from cypher.hub.tokenizer import SpecialTokens, load_tokenizer, special_tokens
from cypher.hub.weights import read_safetensors, write_safetensors
from cypher.models import bert, llama, seq2seq
from cypher.models.bert import Bert, BertConfig
from cypher.models.llama import Llama, LlamaConfig
from cypher.models.model import Model
from cypher.models.name_map import NameMap
from cypher.models.seq2seq import Seq2Seq, Seq2SeqConfig


@dataclass(frozen=True, kw_only=True)
class Dropout:
    """Shares set to zero in training, whatever the checkpoint was pre-trained with.

    Args:
        dropout: Of updates and embeddings.
        attention_dropout: Of attention probabilities.
    """

    dropout: float = 0.0
    attention_dropout: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """How a family of checkpoints becomes a model here.

    Args:
        name: As in ``cypher models matrix``.
        build: From a checkpoint's ``config.json`` and the names of its tensors here to a model with random weights.
        names: Names of parameters in both directions.
    """

    name: str
    build: Callable[[dict[str, Any], set[str], Dropout], Model]
    names: NameMap


def _build_bert(config: dict[str, Any], names: set[str], dropout: Dropout) -> Bert:
    changes = {
        "with_pooler": "pooler.weight" in names,
        "with_prediction": "prediction.dense.weight" in names,
        **asdict(dropout),
    }
    return Bert(BertConfig.from_checkpoint(config).model_copy(update=changes))


def _build_llama(config: dict[str, Any], names: set[str], dropout: Dropout) -> Llama:
    changes = {"is_tied": "output.weight" not in names, **asdict(dropout)}
    return Llama(LlamaConfig.from_checkpoint(config).model_copy(update=changes))


def _build_seq2seq(config: dict[str, Any], names: set[str], dropout: Dropout) -> Seq2Seq:
    return Seq2Seq(Seq2SeqConfig.from_checkpoint(config).model_copy(update=asdict(dropout)))


_BERT = Architecture(name="bert", build=_build_bert, names=bert.NAME_MAP)
_LLAMA = Architecture(name="llama", build=_build_llama, names=llama.NAME_MAP)
_SEQ2SEQ = Architecture(name="seq2seq", build=_build_seq2seq, names=seq2seq.NAME_MAP)
# By the model_type of a checkpoint's config.json.
ARCHITECTURES = {"bert": _BERT, "roberta": _BERT, "xlm-roberta": _BERT, "llama": _LLAMA}
ARCHITECTURES |= dict.fromkeys(("marian", "bart", "mbart", "pegasus"), _SEQ2SEQ)

READ_FORMATS = ("safetensors",)
"""Of weights: GGUF files can be fetched, but no model is built from them."""


@dataclass(frozen=True, kw_only=True)
class LoadedModel:
    """A model with what belongs to it.

    Args:
        model: In evaluation mode, fp32.
        tokenizer: Without truncation and padding.
        special: Ids put around texts.
        folder: Where it came from.
        architecture: Its family.
    """

    model: Model
    tokenizer: Tokenizer
    special: SpecialTokens
    folder: Path
    architecture: Architecture

    @property
    def uses_segment_ids(self) -> bool:
        """Whether it tells two texts apart by segment ids."""
        return isinstance(self.model, Bert) and self.model.config.n_segments > 1


def load_model(
    name: str,
    *,
    offline: bool | None = None,
    dropout: Dropout | None = None,
    progress: FetchProgress | None = None,
) -> LoadedModel:
    """Load a pre-trained model.

    Args:
        name: As for :func:`cypher.hub.resolve`.
        offline: Whether the network may be used; ``None`` asks the environment.
        dropout: For training; ``None`` is none.
        progress: Told the bytes, if the model has to be fetched.

    Raises:
        ModelError: It cannot be found, is a GGUF file or of no family known here, or tensors are missing or of other
            shapes.

    Example:
        >>> load_model("minilm").model.width  # doctest: +SKIP
        384
    """
    folder = resolve(name, formats=READ_FORMATS, offline=offline, progress=progress)
    model, architecture, tensors = _outlined(folder, dropout or Dropout())
    expected = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    missing = sorted(set(expected) - set(tensors))
    if missing:
        raise ModelError(
            f"{folder} lacks {len(missing)} of {len(expected)} tensors, such as {', '.join(missing[:3])}",
            needed="weights of the sizes its config.json names",
        )
    for key, shape in expected.items():
        if tuple(tensors[key].shape) != shape:
            raise ModelError(f"{folder}: {key} is {tuple(tensors[key].shape)}", needed=f"{shape} by its config.json")
    # Copies, so that training never writes into a mapped file and fp16 checkpoints train in fp32.
    model.load_state_dict(
        {key: tensors[key].to(torch.float32, copy=True) for key in expected}, assign=True, strict=True
    )
    return LoadedModel(
        model=model.eval(),
        tokenizer=load_tokenizer(folder),
        special=special_tokens(folder),
        folder=folder,
        architecture=architecture,
    )


def outline_model(name: str, *, progress: FetchProgress | None = None) -> tuple[Model, Architecture]:
    """A published model without memory for its weights, on the meta device; arguments and errors as above.

    Args:
        name: As for :func:`cypher.hub.resolve`.
        progress: Told the bytes, if the model has to be fetched.
    """
    model, architecture, _ = _outlined(resolve(name, formats=READ_FORMATS, progress=progress), Dropout())
    return model, architecture


def _outlined(folder: Path, dropout: Dropout) -> tuple[Model, Architecture, dict[str, Tensor]]:
    """The model of a folder on the meta device, its family, and its tensors by our names."""
    config = read_config(folder)
    family = config.get("model_type")
    if family not in ARCHITECTURES:
        raise ModelError(f"{folder}: model_type {family!r}", needed=f"one of {', '.join(ARCHITECTURES)}")
    architecture = ARCHITECTURES[family]
    tensors = {}
    for theirs, tensor in read_safetensors(folder).items():
        # What the table does not know is a head or a buffer of another task.
        if (ours := architecture.names.to_ours(theirs)) is not None:
            tensors[ours] = tensor
    about = folder / "config.json"
    try:
        with torch.device("meta"):
            model = architecture.build(config, set(tensors), dropout)
    except ValidationError as error:
        raise ModelError(str(refusal(error, BertConfig | LlamaConfig | Seq2SeqConfig, where=str(about)))) from error
    except (AttributeError, TypeError, ValueError, ZeroDivisionError, ConfigError) as error:
        raise ModelError(f"{about} gives sizes that no {architecture.name} has ({first_line(error)})") from error
    return model, architecture, tensors


def export_model(loaded: LoadedModel, folder: Path) -> None:
    """Write a folder that ``transformers.AutoModel.from_pretrained`` loads: weights, config, tokenizer.

    Args:
        loaded: Deltas must have been merged.
        folder: New or empty.

    Raises:
        ConfigError: The folder has files or is none, or adapters are still attached.
        DataError: It cannot be written.
    """
    state = loaded.model.state_dict()
    theirs = {name: loaded.architecture.names.to_theirs(name) for name in state}
    attached = [name for name, other in theirs.items() if other is None]
    if attached:
        raise ConfigError(f"{attached[0]} has no name in published checkpoints", change="merge adapters before export")
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"{folder} is a file", change="give a new folder")
    with writing(folder, kind=DataError, otherwise="give another folder"):
        if folder.exists() and any(folder.iterdir()):
            raise ConfigError(f"{folder} is not empty", change="give a new folder")
        folder.mkdir(parents=True, exist_ok=True)
        # Sub-folders too: sentence encoders keep their pooling in one.
        for path in loaded.folder.rglob("*"):
            if path.suffix in (".json", ".txt") and not path.name.endswith(".index.json"):
                target = folder / path.relative_to(loaded.folder)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, target)
    write_safetensors(folder / "model.safetensors", {str(theirs[name]): tensor for name, tensor in state.items()})


def read_config(folder: Path) -> dict[str, Any]:
    """A checkpoint's ``config.json``.

    Raises:
        ModelError: It is missing or holds no JSON object.
    """
    return read_json(folder / "config.json", kind=ModelError, needed="a model's folder, fetched whole")
