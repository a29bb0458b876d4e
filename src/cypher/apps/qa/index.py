"""From files to the store: only what changed is read, embedded and written; what was deleted leaves.

A file is known by its real path and the sha256 of its bytes, so one that is touched or copied back is not
embedded again (its ``path`` stays as it was first given). Documents are written in commits of some 256
passages, each document whole: an interrupted run keeps its commits, and the next run goes on from there.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np

from cypher.apps.qa.file_sources import AnyPath, deleted_sources, find_sources, size_of
from cypher.apps.qa.passage_table import EmbeddedDocument, searched_text
from cypher.apps.qa.store import PassageStore
from cypher.apps.qa.writer_lock import WAIT_SECONDS, OnWait
from cypher.documents import Document, Passage, read_document, split_passages
from cypher.documents.source import read_bytes
from cypher.errors import DataError
from cypher.tasks.embed import Embedder

Progress: TypeAlias = Callable[[str, int, int], None]
"""Called with what is being done, how much of it is done, and its total: bytes where files are read or fetched,
characters of documents without a file, questions."""

OnProblem: TypeAlias = Callable[[DataError], None]
"""Called with the error of each file that cannot be indexed, as it is met."""

COMMIT_PASSAGES = 256
"""Passages of one commit, or more where one document has more: what an interruption can lose."""

# Every commit is a file more for queries to open, and a version that lists all of them.
COMMITS_BETWEEN_OPTIMISATIONS = 64


@dataclass(frozen=True, kw_only=True)
class IndexReport:
    """What a run did.

    Args:
        added: Documents that are new in the store.
        updated: Documents whose content changed.
        removed: Documents whose file is gone.
        unchanged: Documents that were left alone.
        problems: A line for each file that could not be read; what was stored of it before stays.
        passages: In the store now.
        seconds: Of the whole run, waiting for another writer included.
    """

    added: int
    updated: int
    removed: int
    unchanged: int
    problems: tuple[str, ...]
    passages: int
    seconds: float


def index_paths(
    store: PassageStore,
    paths: AnyPath | Iterable[AnyPath],
    embedder: Embedder,
    *,
    progress: Progress | None = None,
    on_problem: OnProblem | None = None,
    on_wait: OnWait | None = None,
    wait_seconds: float = WAIT_SECONDS,
) -> IndexReport:
    """Bring the store up to date with files and folders; what it holds of other folders stays.

    Args:
        store: Made with this embedder.
        paths: Files and folders, as `cypher.documents.find_files` takes them.
        embedder: Makes the vectors.
        progress: Told how far the run is.
        on_problem: Told of each file that cannot be read, as it is met.
        on_wait: Told once if another process is writing to the store.
        wait_seconds: How long to wait for it.

    Raises:
        DataError: A path does not exist, or a folder has nothing to read and nothing of it is stored.
        StoreError: Disk full, store damaged, or another writer took too long.

    Example:
        >>> index_paths(store, "docs", embedder).added  # doctest: +SKIP
        12
    """
    roots = [paths] if isinstance(paths, str | os.PathLike) else list(paths)
    with store.writing(on_wait=on_wait, wait_seconds=wait_seconds):
        run = _Run(store, embedder, progress, on_problem)
        files = find_sources(roots, run.known, on_error=run.report)
        run.remove(deleted_sources(roots, files, run.known))
        sizes = {source: size_of(path) for source, path in files.items()}
        run.total = sum(sizes.values())
        for source, path in files.items():
            size = sizes[source]
            try:
                # Hashed before it is read: a file that changes in between is new again to the next run.
                content_hash = hashlib.sha256(read_bytes(path)).hexdigest()
                if run.is_unchanged(source, content_hash, size):
                    continue
                document = read_document(path)
            except DataError as error:
                run.report(error, size)
                continue
            passages = split_passages(document, words=store.settings.words, overlap_words=store.settings.overlap_words)
            run.add(source, content_hash, document, passages, size)
        return run.finish()


def index_documents(
    store: PassageStore,
    documents: Iterable[Document],
    embedder: Embedder,
    *,
    split: Callable[[Document], Sequence[Passage]] | None = None,
    progress: Progress | None = None,
    on_problem: OnProblem | None = None,
    on_wait: OnWait | None = None,
    wait_seconds: float = WAIT_SECONDS,
) -> IndexReport:
    """Add documents that are in memory; those already stored are left alone, and none is removed.

    Args:
        store: Made with this embedder.
        documents: Known by their ``id``.
        embedder: Makes the vectors.
        split: A document's passages; the store's own cut by words when not given. `whole_document` keeps each
            document in one piece.
        progress: Told how far the run is.
        on_problem: Told of each document without text.
        on_wait: Told once if another process is writing to the store.
        wait_seconds: How long to wait for it.

    Raises:
        StoreError: Disk full, store damaged, or another writer took too long.

    Example:
        >>> documents = [Document(text="The fair is in June.", meta={"title": "Fair"})]
        >>> index_documents(store, documents, embedder, split=whole_document).passages  # doctest: +SKIP
        1
    """
    different = {document.id: document for document in documents}
    words, overlap_words = store.settings.words, store.settings.overlap_words
    with store.writing(on_wait=on_wait, wait_seconds=wait_seconds):
        run = _Run(store, embedder, progress, on_problem)
        run.total = sum(len(document.text) for document in different.values())
        for document in different.values():
            source, size = f"document:{document.id}", len(document.text)
            if run.is_unchanged(source, document.id, size):
                continue
            if not document.text.strip():
                run.report(DataError(f"document {document.id} is empty (white space only)"), size)
                continue
            passages = split(document) if split else split_passages(document, words=words, overlap_words=overlap_words)
            run.add(source, document.id, document, passages, size)
        return run.finish()


def whole_document(document: Document) -> list[Passage]:
    """The document as its one passage, its title as the heading.

    Example:
        >>> [passage.end for passage in whole_document(Document(text="One. Two."))]
        [9]
    """
    heading = str(document.meta.get("title") or "")
    return [
        Passage(
            document_id=document.id,
            text=document.text,
            start=0,
            end=len(document.text),
            page=document.page_at(0),
            index=0,
            heading=heading,
        )
    ]


@dataclass(frozen=True, kw_only=True)
class _Waiting:
    """A document that waits for its vectors."""

    source: str
    content_hash: str
    document: Document
    passages: Sequence[Passage]
    size: int


@dataclass
class _Run:
    """One indexing run under the lock: counts, and documents on their way to the next commit."""

    store: PassageStore
    embedder: Embedder
    progress: Progress | None
    on_problem: OnProblem | None
    total: int = 0
    done: int = 0
    added: int = 0
    updated: int = 0
    removed: int = 0
    unchanged: int = 0
    commits: int = 0
    problems: list[str] = field(default_factory=list)
    waiting: list[_Waiting] = field(default_factory=list)
    started: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self.known = self.store.contents()

    def is_unchanged(self, source: str, content_hash: str, size: int) -> bool:
        if self.known.get(source) != content_hash:
            return False
        self.unchanged += 1
        self._advance(size)
        return True

    def report(self, error: DataError, size: int = 0) -> None:
        self.problems.append(str(error))
        if self.on_problem is not None:
            self.on_problem(error)
        self._advance(size)

    def remove(self, sources: list[str]) -> None:
        self.store.remove_sources(sources)
        for source in sources:
            del self.known[source]
        self.removed += len(sources)

    def add(self, source: str, content_hash: str, document: Document, passages: Sequence[Passage], size: int) -> None:
        assert passages, "a document with text has a passage"
        self.waiting.append(
            _Waiting(source=source, content_hash=content_hash, document=document, passages=passages, size=size)
        )
        if sum(len(entry.passages) for entry in self.waiting) >= COMMIT_PASSAGES:
            self._commit()

    def finish(self) -> IndexReport:
        if self.waiting:
            self._commit()
        if self.commits or self.removed or self.store.needs_optimising():
            self.store.optimise()
        return IndexReport(
            added=self.added,
            updated=self.updated,
            removed=self.removed,
            unchanged=self.unchanged,
            problems=tuple(self.problems),
            passages=self.store.stats().passages,
            seconds=time.monotonic() - self.started,
        )

    def _commit(self) -> None:
        replaced = [entry.source for entry in self.waiting if entry.source in self.known]
        self.store.put(self._embedded(), replaced=replaced)
        self.updated += len(replaced)
        self.added += len(self.waiting) - len(replaced)
        self.waiting.clear()
        self.commits += 1
        if self.commits % COMMITS_BETWEEN_OPTIMISATIONS == 0:
            self.store.optimise()

    def _embedded(self) -> list[EmbeddedDocument]:
        """The waiting documents with vectors, made in batches over all of them."""
        passages = [passage for entry in self.waiting for passage in entry.passages]
        size = sum(entry.size for entry in self.waiting)
        vectors = []
        for start in range(0, len(passages), COMMIT_PASSAGES):
            batch = passages[start : start + COMMIT_PASSAGES]
            vectors.append(self.embedder.embed([searched_text(passage) for passage in batch]))
            share = size * min(start + COMMIT_PASSAGES, len(passages)) // len(passages)
            self._advance(share - size * start // len(passages))
        ends = np.cumsum([len(entry.passages) for entry in self.waiting])[:-1]
        return [
            EmbeddedDocument(
                source=entry.source,
                content_hash=entry.content_hash,
                document=entry.document,
                passages=entry.passages,
                vectors=own,
            )
            for entry, own in zip(self.waiting, np.split(np.concatenate(vectors), ends), strict=True)
        ]

    def _advance(self, size: int) -> None:
        self.done += size
        if self.progress is not None:
            self.progress("indexing", self.done, self.total)
