"""The document store: passages, their vectors and a full-text index in one LanceDB table in a folder.

A document's passages enter in one commit and leave in one, so a process that is killed leaves whole documents
behind, and a reader never sees half of one. One process writes at a time, under a file lock: LanceDB merges
commits of several writers but would let two of them insert the same document twice. Readers need no lock and
see each commit at once.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from cypher.apps.qa.store_failures import ENGINE_ERRORS, store_failures
from cypher.apps.qa.store_settings import StoreSettings, read_settings, remedy, write_settings
from cypher.documents import Document, MetaValue, Passage
from cypher.errors import StoreError

if TYPE_CHECKING:
    import pyarrow as pa

DEFAULT_WORDS = 150
DEFAULT_OVERLAP_WORDS = 30
WAIT_SECONDS = 600.0
"""How long a writer waits for another one."""

OnWait: TypeAlias = Callable[[str], None]
"""Called once with a line to show when another process is writing."""

_TABLE = "passages"
_INDEX = "searched_text_idx"
_KEY = ["source", "passage_index"]
# Readers that are in the middle of a query keep the files of the version they began with.
_KEPT = timedelta(minutes=10)
_MAX_HEADING = 200


@dataclass(frozen=True, kw_only=True)
class EmbeddedDocument:
    """A document ready to be stored.

    Args:
        source: What it is known by in the store: the absolute path of a file.
        content_hash: Changes when the source does.
        document: Text and meta.
        passages: At least one.
        vectors: ``(len(passages), width)`` fp32, each of length 1.
    """

    source: str
    content_hash: str
    document: Document
    passages: Sequence[Passage]
    vectors: NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class StoreStats:
    """Size of a store; ``bytes`` on disk, versions kept for readers included."""

    documents: int
    passages: int
    bytes: int
    model: str
    words: int
    overlap_words: int


class PassageStore:
    """Passages in a folder; made by `open` or `rebuild`.

    Example:
        >>> store = PassageStore.open(".cypher", model="minilm@70e7c3a3fd4b", width=384, create=True)  # doctest: +SKIP
        >>> store.stats().documents  # doctest: +SKIP
        0
    """

    def __init__(self, folder: Path, settings: StoreSettings) -> None:
        from filelock import FileLock

        self.folder = folder
        self.settings = settings
        self._lock = FileLock(folder / "writer.lock")
        self._table = _open_table(folder)
        self.check()

    @classmethod
    def open(
        cls,
        uri: str | os.PathLike[str],
        *,
        model: str,
        width: int,
        words: int | None = None,
        overlap_words: int | None = None,
        create: bool = False,
    ) -> PassageStore:
        """The store in a folder.

        Opening reads one small column of every data file, so files that are missing or cut short are found
        here and not in the middle of an answer. (Flipped bytes inside a file can pass: the format has no
        checksums.)

        Args:
            uri: The folder.
            model: Who embeds, as `embedder_identity` writes it.
            width: Numbers in a vector.
            words: Most words of a passage; ``None`` takes the store's own, 150 for a new one; 0 for passages
                that are made elsewhere.
            overlap_words: Most words that neighbours share; ``None`` takes the store's own, 30 for a new one.
            create: Whether to make an empty store where there is none.

        Raises:
            StoreError: There is none, it was made with another model or other passages, or it is damaged.
        """
        folder = _folder(uri)
        found = read_settings(folder)
        wanted = _settings(model, width, words, overlap_words, found)
        if found is None:
            if not create:
                raise StoreError(
                    f"there is no store at {folder}", change=f"run `cypher qa index PATH --store {folder}` first"
                )
            return _create(folder, wanted)
        if not found.fits(wanted):
            raise StoreError(f"{folder} was indexed with {found}", needed=str(wanted), change=remedy(folder))
        return cls(folder, found)

    @classmethod
    def rebuild(
        cls,
        uri: str | os.PathLike[str],
        *,
        model: str,
        width: int,
        words: int | None = None,
        overlap_words: int | None = None,
    ) -> PassageStore:
        """An empty store in place of whatever store is in the folder, damaged ones too; see `open`.

        Nothing else in the folder is touched.
        """
        folder = _folder(uri)
        settings = _settings(model, width, words, overlap_words, None)
        with _creating(folder):
            shutil.rmtree(_table_folder(folder), ignore_errors=True)
            return _create_table(folder, settings)

    @contextmanager
    def writing(self, *, on_wait: OnWait | None = None, wait_seconds: float = WAIT_SECONDS) -> Iterator[None]:
        """Be the only writer inside the block; may be nested.

        Raises:
            StoreError: Another process is still writing after ``wait_seconds``, or the folder is read-only.
        """
        with _locked(self._lock, self.folder, on_wait, wait_seconds):
            yield

    def check(self) -> None:
        """Read one column of every data file.

        Raises:
            StoreError: One is missing or damaged.
        """
        with store_failures(self.folder):
            self._table.count_rows("passage_index >= 0")

    def contents(self) -> dict[str, str]:
        """Source → content hash of every document."""
        rows = self._first_passages(["source", "content_hash"])
        return dict(zip(rows["source"].to_pylist(), rows["content_hash"].to_pylist(), strict=True))

    def metas(self) -> list[tuple[str, dict[str, MetaValue]]]:
        """Id and meta of every document."""
        rows = self._first_passages(["document_id", "meta"])
        metas = map(json.loads, rows["meta"].to_pylist())
        return list(zip(rows["document_id"].to_pylist(), metas, strict=True))

    def stats(self) -> StoreStats:
        """Documents, passages, bytes."""
        with store_failures(self.folder):
            passages, documents = self._table.count_rows(), self._table.count_rows("passage_index = 0")
        n_bytes = 0
        for parent, _, names in os.walk(self.folder):
            for name in names:
                # A file may leave while a writer tidies up.
                path = Path(parent, name)
                n_bytes += path.stat().st_size if path.exists() else 0
        settings = self.settings
        return StoreStats(
            documents=documents,
            passages=passages,
            bytes=n_bytes,
            model=settings.model,
            words=settings.words,
            overlap_words=settings.overlap_words,
        )

    def put(self, documents: Sequence[EmbeddedDocument], *, replaced: Iterable[str] = ()) -> None:
        """Store documents in one commit.

        Args:
            documents: Of different sources.
            replaced: Those of their sources that are in the store already; their old passages leave.

        Raises:
            StoreError: Disk full or store damaged; the store is then as it was.
        """
        rows = _rows(documents, self.settings.width)
        old = list(replaced)
        with self.writing(), store_failures(self.folder):
            if not old:
                self._table.add(rows)
                return
            merge = self._table.merge_insert(_KEY).when_matched_update_all().when_not_matched_insert_all()
            merge.when_not_matched_by_source_delete(one_of("source", old)).execute(rows)

    def remove(self, path: str | os.PathLike[str]) -> int:
        """Take a file, or all files below a folder, out of the store; returns how many documents left."""
        source = source_of(path)
        with self.writing():
            gone = [known for known in self.contents() if is_below(known, source)]
            self.remove_sources(gone)
            if gone:
                self.optimise()
        return len(gone)

    def remove_sources(self, sources: Sequence[str]) -> None:
        """Take documents out, in one commit."""
        if sources:
            with self.writing(), store_failures(self.folder):
                self._table.delete(one_of("source", sources))

    def clear(self) -> None:
        """Take everything out; the settings stay."""
        with self.writing():
            with store_failures(self.folder):
                self._table.delete("true")
            self.optimise()

    def optimise(self) -> None:
        """Merge small files, bring the full-text index up to date, drop versions older than ten minutes.

        Files that a killed or failed writer left behind go too: under the lock nobody else is writing.
        """
        with self.writing():
            try:
                with store_failures(self.folder):
                    self._table.optimize(cleanup_older_than=_KEPT, delete_unverified=True)
            except StoreError:
                self._repair_index()

    def full_text(self, query: str, *, limit: int, where: str | None = None) -> pa.Table:
        """Rows with the highest BM25, column ``_score``; a damaged full-text index is built anew.

        Words are stemmed as English and stop words left out; there is no query syntax to escape.
        """
        try:
            return self._full_text(query, limit, where)
        except ENGINE_ERRORS:
            self.check()
            self._repair_index()
        with store_failures(self.folder):
            return self._full_text(query, limit, where)

    def nearest(self, vector: NDArray[np.float32], *, limit: int, where: str | None = None) -> pa.Table:
        """Rows with the highest cosine, by exact search: every vector is read, fast enough to a million."""
        with store_failures(self.folder):
            found = self._table.search(vector, vector_column_name="vector").distance_type("cosine").limit(limit)
            return _prefiltered(found, where).select([*_COLUMNS, "_distance"]).to_arrow()

    def _full_text(self, query: str, limit: int, where: str | None) -> pa.Table:
        from lancedb.query import MatchQuery

        found = self._table.search(MatchQuery(query, "searched_text"), query_type="fts").limit(limit)
        return _prefiltered(found, where).select([*_COLUMNS, "_score"]).to_arrow()

    def _first_passages(self, columns: list[str]) -> pa.Table:
        """One row a document."""
        with store_failures(self.folder):
            return self._table.search().where("passage_index = 0").select(columns).to_arrow()

    def _repair_index(self) -> None:
        with self.writing(), store_failures(self.folder):
            _index_text(self._table)


def source_of(path: str | os.PathLike[str]) -> str:
    """What a file or folder is known by in every store: its real path."""
    from cypher.documents.source import shown

    return shown(os.path.realpath(path))


def is_below(source: str, folder: str) -> bool:
    """Whether a source is this path or lies below it.

    Example:
        >>> is_below("/docs/a.txt", "/docs"), is_below("/docs2/a.txt", "/docs")
        (True, False)
    """
    return source == folder or source.startswith(folder.rstrip("/") + "/")


def heading_prefix(heading: str) -> str:
    """What stands before a passage's text in what is searched and embedded."""
    return f"{heading[:_MAX_HEADING]}. " if heading else ""


def storable(text: str) -> str:
    """The text with each lone surrogate, which no file format can hold, as one U+FFFD; offsets stay."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace") if not _is_unicode(text) else text


def one_of(column: str, values: Iterable[str]) -> str:
    """SQL for ``column IN (values)``."""
    quoted = ", ".join("'" + value.replace("'", "''") + "'" for value in values)
    return f"{column} IN ({quoted})"


_COLUMNS = [
    "document_id",
    "passage_index",
    "start",
    "end",
    "page",
    "heading",
    "searched_text",
    "meta",
    "vector",
]
