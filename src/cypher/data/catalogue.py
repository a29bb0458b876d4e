"""The data sets known by name: typed rows of ``catalogue.toml``."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import Literal

from pydantic import Field, model_validator

from cypher import toml
from cypher.errors import DataError
from cypher.hub.catalogue import CheckedFile, RelativePath, Row, Sha256


class DataFile(CheckedFile):
    """One file of a data set; ``path``, ``size`` and ``sha256`` are of the content, gzipped or not.

    Args:
        source_path: Place in the source repository.
        articles: The file is these articles of the source's SQuAD file; empty: the source's file itself.
        source_size: Bytes of the source's file where ``articles`` are taken from it.
        source_sha256: Its sha256.
    """

    source_path: RelativePath
    articles: tuple[str, ...] = ()
    source_size: int | None = None
    source_sha256: Sha256 | None = None

    @model_validator(mode="after")
    def _source_is_checked(self) -> DataFile:
        sums = (self.source_size, self.source_sha256)
        if any(value is None for value in sums) == bool(self.articles):
            raise ValueError("articles, source_size and source_sha256 go together")
        return self


class DataEntry(Row):
    """One data set: what it is, what may be done with it, where it comes from.

    Args:
        name: As in ``[data] train`` of a recipe and ``cypher data fetch``.
        description: One line for a list.
        format: Which reader takes it: ``"squad"`` (one file), ``"cranfield"`` (a folder of three), ``"table"`` or
            ``"text"``.
        trainable: ``False`` for a set kept for evaluation.
        licence: SPDX identifier, or ``"none stated"``.
        url: The set's own page.
        citation: What to cite.
        repository: Source repository on GitHub, ``owner/name``.
        revision: Its commit.
        files: All files.
        download: Where a file of the repository is had.
    """

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_/-]*$")
    description: str
    format: Literal["squad", "cranfield", "table", "text"]
    trainable: bool
    licence: str
    url: str
    citation: str
    repository: str = Field(pattern=r"^[\w.-]+/[\w.-]+$")
    revision: str = Field(pattern=r"^[0-9a-f]{40}$")
    files: tuple[DataFile, ...] = Field(min_length=1)
    download: str = Field(
        default="https://raw.githubusercontent.com/{repository}/{revision}/{path}", pattern=r"^https://"
    )

    @property
    def size(self) -> int:
        """Bytes of all files together, uncompressed."""
        return sum(file.size for file in self.files)

    def url_of(self, file: DataFile) -> str:
        """Where ``file``'s source is downloaded from."""
        return self.download.format(repository=self.repository, revision=self.revision, path=file.source_path)


@cache
def data_sets() -> Mapping[str, DataEntry]:
    """All data sets of the catalogue by name, in the order of the file.

    Example:
        >>> data_sets()["squad/squad2_dev_open"].trainable
        False
    """
    text = resources.files("cypher.data").joinpath("catalogue.toml").read_text("utf-8")
    return {name: DataEntry(name=name, **row) for name, row in toml.loads(text).items()}


def find(name: str) -> DataEntry:
    """The catalogue's row of that name.

    Raises:
        DataError: No such name; the line gives the nearest one and all of them.
    """
    if name in data_sets():
        return data_sets()[name]
    near = difflib.get_close_matches(name, data_sets(), n=1)
    raise DataError(
        f"data set {name!r}" + (f" (did you mean {near[0]!r}?)" if near else ""),
        needed=f"an existing file or a name of the catalogue ({', '.join(data_sets())})",
        change="see `cypher data list`",
    )
