"""The document store: passages, their vectors and a full-text index in one LanceDB table in a folder.

A document's passages enter in one commit and leave in one, so a process that is killed leaves whole documents
behind, and a reader never sees half of one. One process writes at a time, under a file lock: LanceDB merges
commits of several writers but would let two of them insert the same document twice. Readers need no lock and
see each commit at once.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cypher.apps.qa.file_sources import real_path, sources_below
from cypher.apps.qa.passage_table import (
    KEY,
    RESULT_COLUMNS,
    TEXT_INDEX,
    EmbeddedDocument,
    create_table,
    index_text,
    one_of,
    open_table,
    rows_of,
    table_folder,
)
from cypher.apps.qa.store_failures import ENGINE_ERRORS, store_failures
from cypher.apps.qa.store_settings import SETTINGS_FILE, StoreSettings, read_settings, remedy, write_settings
from cypher.apps.qa.writer_lock import WAIT_SECONDS, OnWait, holding, writer_lock
from cypher.documents import MetaValue
from cypher.documents.passages import check_passage_words, default_overlap
from cypher.documents.source import shown
from cypher.errors import StoreError, WrongStoreError

if TYPE_CHECKING:
    import pyarrow as pa

DEFAULT_WORDS = 150

# A reader in the middle of a query needs the files of the version it began with.
_KEPT_FOR_READERS = timedelta(minutes=10)


@dataclass(frozen=True, kw_only=True)
class StoredDocument:
    """What is known of a document without its passages; ``source`` is its file's full path or ``document:ID``."""

    document_id: str
    source: str
    meta: dict[str, MetaValue]


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

    Args:
        folder: Of a store that exists.
        settings: What it was made with.

    Example:
        >>> import tempfile
        >>> store = PassageStore.open(tempfile.mkdtemp(), model="tiny@0", width=2, create=True)
        >>> store.stats().documents
        0
    """

    def __init__(self, folder: Path, settings: StoreSettings) -> None:
        self.folder = folder
        self.settings = settings
        self._lock = writer_lock(folder)
        with store_failures(folder):
            self._table: Any = open_table(folder)
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

        Opening reads a small column of every data file, so that a file which is missing or cut short is found
        here and not in the middle of an answer. Bytes changed inside a file can pass: the format has no sums.

        Args:
            uri: The folder.
            model: Who embeds, as `embedder_identity` writes it.
            width: Numbers in a vector.
            words: Most words of a passage; ``None`` takes the store's own, 150 for a new one; 0 for passages
                that are made elsewhere.
            overlap_words: Most words that neighbours share; ``None`` takes the store's own, a fifth of ``words``
                for a new one.
            create: Whether to make an empty store where there is none.

        Raises:
            ConfigError: No document can be cut by these lengths.
            WrongStoreError: There is none, or it was made with another model or other passages.
            StoreError: It is damaged.
        """
        folder = _folder(uri)
        found = read_settings(folder)
        if found is None and not create:
            raise _no_store(folder)
        if found is None:
            made = _settings(model, width, words, overlap_words, None)
            with _preparing(folder):
                # Another process may have made it while this one waited.
                found = read_settings(folder)
                if found is None:
                    _refuse_passages_without_settings(folder)
                    return _make(folder, made)
        wanted = _settings(model, width, words, overlap_words, found)
        if not found.fits(wanted):
            raise WrongStoreError(f"{folder} was indexed with {found}", needed=str(wanted), change=remedy(folder))
        return cls(folder, found)

    @classmethod
    def existing(cls, uri: str | os.PathLike[str]) -> PassageStore:
        """The store in a folder, whatever made it: to look at what it holds, or take documents out.

        Raises:
            WrongStoreError: There is none.
            StoreError: It is damaged.
        """
        folder = _folder(uri)
        found = read_settings(folder)
        if found is None:
            raise _no_store(folder)
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
        on_wait: OnWait | None = None,
    ) -> PassageStore:
        """An empty store in place of the one in the folder, damaged or not; other files there stay. See `open`."""
        folder = _folder(uri)
        made = _settings(model, width, words, overlap_words, None)
        with _preparing(folder, on_wait):
            return _make(folder, made)

    @contextmanager
    def writing(self, *, on_wait: OnWait | None = None, wait_seconds: float = WAIT_SECONDS) -> Iterator[None]:
        """Be the only writer inside the block; may be nested.

        Args:
            on_wait: Told once if another process is writing.
            wait_seconds: How long to wait for it.

        Raises:
            WrongStoreError: Since this one was opened, another process has made the store anew with other settings.
            StoreError: It is still writing then, or the folder cannot be written.
        """
        with holding(self._lock, self.folder, on_wait=on_wait, wait_seconds=wait_seconds):
            if self._lock.lock_counter == 1:
                self._follow_rebuild()
            yield

    def is_current(self) -> bool:
        """Whether the folder still holds a store of these settings."""
        found = read_settings(self.folder)
        return found is not None and found.fits(self.settings)

    def check(self) -> None:
        """Read a small column of every data file.

        Raises:
            StoreError: One is missing or damaged.
        """
        with store_failures(self.folder):
            self._table.count_rows("passage_index >= 0")

    def contents(self) -> dict[str, str]:
        """Source → content hash of every document."""
        rows = self._first_passages(["source", "content_hash"])
        return dict(zip(rows["source"].to_pylist(), rows["content_hash"].to_pylist(), strict=True))

    def documents(self) -> list[StoredDocument]:
        """What filters look at, of every document."""
        rows = self._first_passages(["document_id", "source", "meta"])
        return [
            StoredDocument(document_id=row["document_id"], source=row["source"], meta=json.loads(row["meta"]))
            for row in rows.to_pylist()
        ]

    def stats(self) -> StoreStats:
        """How much is stored."""
        with store_failures(self.folder):
            passages, documents = self._table.count_rows(), self._table.count_rows("passage_index = 0")
        settings = self.settings
        return StoreStats(
            documents=documents,
            passages=passages,
            bytes=_bytes_below(self.folder),
            model=settings.model,
            words=settings.words,
            overlap_words=settings.overlap_words,
        )

    def put(self, documents: Sequence[EmbeddedDocument], *, replaced: Sequence[str] = ()) -> None:
        """Store documents in one commit.

        Args:
            documents: Of different sources.
            replaced: Those of their sources that are in the store already; their old passages leave.

        Raises:
            StoreError: The disk is full or the store damaged; what was stored before stays.
        """
        rows = rows_of(documents, self.settings.width)
        with self.writing(), store_failures(self.folder):
            if not replaced:
                self._table.add(rows)
                return
            merge = self._table.merge_insert(KEY).when_matched_update_all().when_not_matched_insert_all()
            merge.when_not_matched_by_source_delete(one_of("source", replaced)).execute(rows)

    def documents_below(self, path: str | os.PathLike[str]) -> list[str]:
        """Sources of a file, or of all files below a folder, which need not be there any more."""
        known = self.contents()
        # The name as it was given, too: a link that is gone leads nowhere.
        places = {real_path(path), shown(os.path.abspath(path))}
        return sorted({source for place in places for source in sources_below(known, place)})

    def remove(self, path: str | os.PathLike[str]) -> int:
        """Take a file, or all files below a folder, out of the store; returns how many documents left."""
        with self.writing():
            gone = self.documents_below(path)
            self.remove_sources(gone)
            if gone:
                self.optimise()
        return len(gone)

    def remove_sources(self, sources: Sequence[str]) -> None:
        """Take documents out, in one commit."""
        if sources:
            with self.writing(), store_failures(self.folder):
                self._table.delete(one_of("source", sources))

    def optimise(self) -> None:
        """Merge small files, bring the full-text index up to date, drop versions older than ten minutes.

        Files that a killed or failed writer left behind go too: under the lock nobody else is writing.
        """
        with self.writing():
            try:
                self._table.optimize(cleanup_older_than=_KEPT_FOR_READERS, delete_unverified=True)
            except ENGINE_ERRORS:
                self._repair_index()

    def needs_optimising(self) -> bool:
        """Whether passages are outside the full-text index, as after a killed run: found, but slowly."""
        try:
            statistics = self._table.index_stats(TEXT_INDEX)
        except ENGINE_ERRORS:
            return True
        return statistics is None or statistics.num_unindexed_rows > 0

    def full_text(self, query: str, *, limit: int, where: str | None = None) -> pa.Table:
        """Rows with the highest BM25, in column ``_score``; a damaged full-text index is built anew.

        Words are stemmed as English ones and stop words left out. There is no query syntax to escape.
        """
        try:
            return self._full_text(query, limit, where)
        except ENGINE_ERRORS:
            self.check()
            self._repair_index()
        with store_failures(self.folder):
            return self._full_text(query, limit, where)

    def nearest(self, vector: NDArray[np.float32], *, limit: int, where: str | None = None) -> pa.Table:
        """Rows with the highest cosine, in column ``_distance`` taken from 1.

        Exact, for every vector is read: 0.15 seconds of one core for 100,000 passages of 384 numbers.
        """
        with store_failures(self.folder):
            found = self._table.search(vector, vector_column_name="vector").distance_type("cosine")
            return _rows(found, "_distance", limit, where)

    def _full_text(self, query: str, limit: int, where: str | None) -> pa.Table:
        found = self._table.search(query, query_type="fts", fts_columns="searched_text")
        return _rows(found, "_score", limit, where)

    def _first_passages(self, columns: list[str]) -> pa.Table:
        """One row a document."""
        with store_failures(self.folder):
            return self._table.search().where("passage_index = 0").select(columns).to_arrow()

    def _repair_index(self) -> None:
        with self.writing(), store_failures(self.folder):
            index_text(self._table)

    def _follow_rebuild(self) -> None:
        """Under the lock: what was true at opening may not be any more, for a writer may have waited long."""
        found = read_settings(self.folder)
        if found is None or not found.fits(self.settings):
            raise WrongStoreError(
                f"{self.folder} was rebuilt by another process"
                + (f" with {found}" if found else " that did not finish"),
                needed=str(self.settings),
                change="run the same command again, or name another --store",
            )
        with store_failures(self.folder):
            self._table = open_table(self.folder)


def _rows(search: Any, score: str, limit: int, where: str | None) -> pa.Table:
    if where is not None:
        search = search.where(where, prefilter=True)
    return search.select([*RESULT_COLUMNS, score]).limit(limit).to_arrow()


def _settings(
    model: str, width: int, words: int | None, overlap_words: int | None, found: StoreSettings | None
) -> StoreSettings:
    """What is asked for, checked; what is not said is the store's own."""
    if words is None:
        words = found.words if found else DEFAULT_WORDS
    if overlap_words is None:
        overlap_words = found.overlap_words if found and found.words == words else default_overlap(words)
    if words or overlap_words:
        check_passage_words(words, overlap_words)
    return StoreSettings(model=model, width=width, words=words, overlap_words=overlap_words)


def _no_store(folder: Path) -> WrongStoreError:
    return WrongStoreError(f"there is no store at {folder}", change=f"run `cypher qa index PATH --store {folder}`")


def _folder(uri: str | os.PathLike[str]) -> Path:
    # A Path has lost one slash of a URL.
    if re.match(r"[a-zA-Z][a-zA-Z0-9+.-]+:/", os.fspath(uri)):
        raise WrongStoreError(f"store {os.fspath(uri)}", needed="the path of a folder")
    folder = Path(uri).expanduser().absolute()
    if folder.exists() and not folder.is_dir():
        raise WrongStoreError(f"store {folder} is a file", needed="a folder")
    return folder


@contextmanager
def _preparing(folder: Path, on_wait: OnWait | None = None) -> Iterator[None]:
    with store_failures(folder):
        folder.mkdir(parents=True, exist_ok=True)
    with holding(writer_lock(folder), folder, on_wait=on_wait):
        yield


def _refuse_passages_without_settings(folder: Path) -> None:
    """A process killed while it made a store leaves an empty table, which may go; passages may not."""
    if any(table_folder(folder).glob("data/*")):
        raise StoreError(f"{folder} has passages and no record of what made them", change=remedy(folder))


def _make(folder: Path, settings: StoreSettings) -> PassageStore:
    """An empty store; the settings go first and come last, for they say that the table is whole and theirs."""
    with store_failures(folder):
        (folder / SETTINGS_FILE).unlink(missing_ok=True)
        if table_folder(folder).exists():
            shutil.rmtree(table_folder(folder))
        create_table(folder, settings.width)
        write_settings(folder, settings)
    return PassageStore(folder, settings)


def _bytes_below(folder: Path) -> int:
    n_bytes = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            # A writer may tidy a file away between the listing and here.
            with suppress(FileNotFoundError):
                n_bytes += Path(parent, name).stat().st_size
    return n_bytes
