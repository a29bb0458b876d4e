"""The models known by a short name: typed rows of ``catalogue.toml``."""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Mapping
from functools import cache
from importlib import resources
from pathlib import PurePosixPath
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

from cypher import toml
from cypher.errors import ModelError


def inside(path: str) -> str:
    """Refuse a path that could leave the folder it is meant for; return it otherwise."""
    parts = PurePosixPath(path).parts
    if not parts or path.startswith("/") or ".." in parts or "\\" in path or ":" in path:
        raise ValueError(f"{path!r} is not a relative path inside a folder")
    return path


RelativePath = Annotated[str, AfterValidator(inside)]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class Row(BaseModel):
    """What all catalogue rows share: frozen, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class CheckedFile(Row):
    """One file with what it must be.

    Args:
        path: Place inside the folder, with forward slashes.
        size: Bytes.
        sha256: Of the whole content, lower-case hexadecimal.
    """

    path: RelativePath
    size: int = Field(ge=0)
    sha256: Sha256


class WheelSource(Row):
    """A package on the Python package index that carries the files under ``folder``."""

    kind: Literal["wheel"]
    package: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    version: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9.!+_-]*$")
    folder: RelativePath

    def __str__(self) -> str:
        return f"wheel {self.package}=={self.version}"


class HubSource(Row):
    """A Hugging Face repository at one commit."""

    kind: Literal["hub"]
    repository: str = Field(pattern=r"^[\w.-]+/[\w.-]+$")
    revision: str = Field(pattern=r"^[0-9a-f]{40}$")

    def __str__(self) -> str:
        return f"hub {self.repository}@{self.revision[:12]}"


Source = Annotated[WheelSource | HubSource, Field(discriminator="kind")]


class ModelEntry(Row):
    """One model: what it is, where its files come from and what they must be.

    Args:
        name: The short name.
        description: One line for a list.
        architecture: Which model class reads it, such as ``"bert"``.
        format: ``"safetensors"`` (a folder) or ``"gguf"`` (one file).
        licence: SPDX identifier.
        url: The model's own page.
        citation: What to cite.
        sources: Tried in this order.
        files: All files, the weights first.
    """

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_.-]*$")
    description: str
    architecture: str
    format: Literal["safetensors", "gguf"]
    licence: str
    url: str
    citation: str
    sources: tuple[Source, ...] = Field(min_length=1)
    files: tuple[CheckedFile, ...] = Field(min_length=1)

    @property
    def size(self) -> int:
        """Bytes of all files together."""
        return sum(file.size for file in self.files)

    @property
    def digest(self) -> str:
        """Twelve hexadecimal digits that change when any file does; names the folder in the cache."""
        content = "\n".join(f"{file.path} {file.sha256}" for file in self.files)
        return hashlib.sha256(content.encode()).hexdigest()[:12]


@cache
def models() -> Mapping[str, ModelEntry]:
    """All models of the catalogue by name, in the order of the file.

    Example:
        >>> models()["minilm"].architecture
        'bert'
    """
    text = resources.files("cypher.hub").joinpath("catalogue.toml").read_text("utf-8")
    return {name: ModelEntry(name=name, **row) for name, row in toml.loads(text).items()}


def find(name: str) -> ModelEntry:
    """The catalogue's row of that name, or the error of :func:`unknown`."""
    if name not in models():
        raise unknown(name)
    return models()[name]


def unknown(name: str) -> ModelError:
    """The error for a name that is none: it gives the nearest one and all of them."""
    near = difflib.get_close_matches(name, models(), n=1)
    return ModelError(
        f"model {name!r}" + (f" (did you mean {near[0]!r}?)" if near else ""),
        needed=f"a name of the catalogue ({', '.join(models())}), a folder, or owner/name on the hub",
        change="see `cypher models list`",
    )
