"""What a store was made with: the record in ``store.json`` that tells two models' vectors apart."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cypher.errors import StoreError

if TYPE_CHECKING:
    from cypher.tasks.embed import Embedder

SETTINGS_FILE = "store.json"
FORMAT = 1
"""Raised when tables of an older layout can no longer be read."""

_SAMPLES = 64
_SAMPLE_BYTES = 4096


@dataclass(frozen=True, kw_only=True)
class StoreSettings:
    """What all passages of a store have in common.

    Args:
        model: ``NAME@FINGERPRINT`` of the embedder, see `embedder_identity`.
        width: Numbers in a vector.
        words: Most words of a passage; 0 for passages that were not cut by words.
        overlap_words: Most words that neighbours share.
        format: Layout of the tables.
    """

    model: str
    width: int
    words: int
    overlap_words: int
    format: int = FORMAT

    def __str__(self) -> str:
        return f"{self.model}, {self.words} words a passage, {self.overlap_words} of them shared"

    def fits(self, other: StoreSettings) -> bool:
        """Whether vectors and passages of both can be in one store; names of models do not matter."""
        return self._compared() == other._compared()

    def _compared(self) -> tuple[object, ...]:
        return self.model.rpartition("@")[2], self.width, self.words, self.overlap_words


def embedder_identity(embedder: Embedder, *, name: str | None = None) -> str:
    """``NAME@FINGERPRINT`` of what makes the vectors: weights, tokenizer and the cut at ``max_tokens``.

    The fingerprint hashes the sizes of the files and samples all over them, which takes a millisecond where
    hashing 90 MB takes hundreds; another training of the same model changes samples everywhere. Precision is
    left out: vectors of fp32 and bf16 rank alike.

    Args:
        embedder: The embedder.
        name: As the person knows the model; its folder's name when not given.

    Example:
        >>> embedder_identity(embedder, name="minilm")  # doctest: +SKIP
        'minilm@70e7c3a3fd4b'
    """
    folder = embedder.loaded.folder
    digest = hashlib.sha256(f"{embedder.width} {embedder.max_tokens}".encode())
    for path in sorted([*folder.glob("*.safetensors"), *folder.glob("tokenizer.json")]):
        size = path.stat().st_size
        digest.update(f"{path.name} {size}".encode())
        with path.open("rb") as file:
            for sample in range(_SAMPLES):
                file.seek(sample * max(size - _SAMPLE_BYTES, 0) // (_SAMPLES - 1))
                digest.update(file.read(_SAMPLE_BYTES))
    return f"{name or folder.name}@{digest.hexdigest()[:12]}"


def read_settings(folder: Path) -> StoreSettings | None:
    """The record of a store, ``None`` where there is none.

    Raises:
        StoreError: It is damaged, or of a format this version does not know.
    """
    path = folder / SETTINGS_FILE
    try:
        content = json.loads(path.read_text("utf-8"))
        if content["format"] != FORMAT:
            raise StoreError(
                f"{folder} has store format {content['format']}", needed=f"format {FORMAT}", change=remedy(folder)
            )
        settings = StoreSettings(**content)
        if not all(isinstance(value, type(asdict(_EXAMPLE)[key])) for key, value in asdict(settings).items()):
            raise TypeError("a value of another type")
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise StoreError(f"{path} is damaged ({error})", change=remedy(folder)) from error
    except OSError as error:
        raise StoreError(f"{path} cannot be read ({error.strerror or error})") from error
    return settings


def write_settings(folder: Path, settings: StoreSettings) -> None:
    """Write the record beside the old one and rename it, so that a reader sees one of them whole."""
    beside = folder / f"{SETTINGS_FILE}.new"
    with beside.open("w", encoding="utf-8") as file:
        json.dump(asdict(settings), file)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(folder / SETTINGS_FILE)


def remedy(folder: Path) -> str:
    """What to do about a store that cannot be used as it is."""
    return f"index again with `cypher qa index PATH --store {folder} --rebuild`, or name another --store"


_EXAMPLE = StoreSettings(model="", width=0, words=0, overlap_words=0)
