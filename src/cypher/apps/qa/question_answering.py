"""Questions to your own documents: index, retrieve, read. The one class of this application."""

from __future__ import annotations

import contextlib
import importlib
import os
import time
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from cypher.apps.qa.answers import Answer, AskResult, Timings, context_around
from cypher.apps.qa.file_sources import AnyPath
from cypher.config import InferencePrecision
from cypher.documents import Filter, find_files, parse_filter
from cypher.documents.passages import check_passage_words, default_overlap
from cypher.documents.source import shown
from cypher.errors import DataError, StoreError
from cypher.tasks.find_reader import find_reader

if TYPE_CHECKING:
    from pathlib import Path

    from cypher.apps.qa.index import IndexReport, OnProblem, Progress
    from cypher.apps.qa.reader import ReadAnswer, Reader, ReadResult
    from cypher.apps.qa.retrieve import RetrievedPassage
    from cypher.apps.qa.store import PassageStore
    from cypher.apps.qa.writer_lock import OnWait
    from cypher.tasks.embed import Embedder


class QuestionAnswering:
    """Answers questions from files, with the place of every answer.

    Making one is cheap: weights are loaded when they are first needed, or by :meth:`load`.

    Args:
        store: Folder of the index, made when something is first indexed.
        model: Sentence encoder that finds passages; a name as for :func:`cypher.hub.resolve`.
        reader: Span reader that answers from them: a name under ``cypher/pretrained`` or a run's ``reader`` folder.
        precision: Of both; ``auto`` takes the faster of fp32 and bf16 on this machine.
        words: Most words of a passage; ``None`` takes the store's own, 150 for a new one.
        overlap_words: Most words that neighbours share; ``None`` takes the store's own, a fifth of ``words`` for a
            new one.

    Raises:
        ConfigError: No document can be cut by these lengths.

    Example:
        >>> from cypher.apps.qa import QuestionAnswering
        >>> qa = QuestionAnswering(store=".cypher/qa", model="minilm", reader="minilm-qa")
        >>> report = qa.index("docs/")  # doctest: +SKIP
        >>> result = qa.ask("When is the fair?", where='format == "pdf"')  # doctest: +SKIP
        >>> result.answers[0].answer, result.answers[0].page  # doctest: +SKIP
        ('in June', 3)
    """

    def __init__(
        self,
        store: AnyPath = ".cypher/qa",
        *,
        model: str = "minilm",
        reader: AnyPath = "minilm-qa",
        precision: InferencePrecision = "auto",
        words: int | None = None,
        overlap_words: int | None = None,
    ) -> None:
        if words is not None:
            check_passage_words(words, default_overlap(words) if overlap_words is None else overlap_words)
        self.store_uri = store
        self.model_name = model
        self.reader_name = reader
        self.precision = precision
        self.words = words
        self.overlap_words = overlap_words
        self._embedder: Embedder | None = None
        self._reader: Reader | None = None
        self._store: PassageStore | None = None

    def load(self, *, progress: Progress | None = None) -> None:
        """Load both models and the store's library now; the first question would otherwise wait for it.

        Args:
            progress: Told how far it is with a model that has to be fetched first.

        Raises:
            ModelError: The encoder or the reader cannot be found or does not fit.
        """
        self.embedder(progress=progress)
        self.reader(progress=progress)
        # Without it the store says what to install.
        with contextlib.suppress(ImportError):
            importlib.import_module("lancedb")

    def embedder(self, *, progress: Progress | None = None) -> Embedder:
        """The sentence encoder, laid out for inference.

        Args:
            progress: Told how far it is when the model has to be fetched first.
        """
        if self._embedder is None:
            from cypher.models.load import load_model
            from cypher.tasks.embed import Embedder

            self._embedder = Embedder(load_model(self.model_name, progress=progress), precision=self.precision)
        return self._embedder

    def reader(self, *, progress: Progress | None = None) -> Reader:
        """The span reader, laid out for inference; its model is a copy of its own, with the adapter merged in.

        Args:
            progress: Told how far it is when the model under it has to be fetched first.
        """
        if self._reader is None:
            from cypher.apps.qa.reader import Reader
            from cypher.tasks.reader_folder import load_reader

            folder = find_reader(self.reader_name)
            if progress is not None:  # loading would fetch, too, but say nothing
                model_under(folder, progress=progress)
            self._reader = Reader(load_reader(folder), precision=self.precision)
        return self._reader

    def store(
        self,
        *,
        create: bool = False,
        rebuild: bool = False,
        progress: Progress | None = None,
        on_wait: OnWait | None = None,
    ) -> PassageStore:
        """The opened store; opened anew when another process has put another one in its place.

        Args:
            create: Whether to make an empty one where there is none.
            rebuild: Whether to put an empty one in place of what is there, damaged stores too.
            progress: Told how far it is when the model has to be fetched first.
            on_wait: Told once if ``rebuild`` has to wait for another process that is writing.

        Raises:
            ConfigError: No document can be cut by these lengths of passages.
            WrongStoreError: There is none, or it was made with another model or other passages.
            StoreError: It is damaged.
        """
        if self._store is None or rebuild or not self._store.is_current():
            from cypher.apps.qa.store import PassageStore
            from cypher.apps.qa.store_settings import embedder_identity

            embedder = self.embedder(progress=progress)
            identity, width = embedder_identity(embedder, name=self.model_name), embedder.width
            if rebuild:
                self._store = PassageStore.rebuild(
                    self.store_uri,
                    model=identity,
                    width=width,
                    words=self.words,
                    overlap_words=self.overlap_words,
                    on_wait=on_wait,
                )
            else:
                self._store = PassageStore.open(
                    self.store_uri,
                    model=identity,
                    width=width,
                    words=self.words,
                    overlap_words=self.overlap_words,
                    create=create,
                )
        return self._store

    def index(
        self,
        paths: AnyPath | Iterable[AnyPath],
        *,
        rebuild: bool = False,
        progress: Progress | None = None,
        on_problem: OnProblem | None = None,
        on_wait: OnWait | None = None,
    ) -> IndexReport:
        """Bring the store up to date with files and folders; only what changed is read and embedded.

        Args:
            paths: Files and folders; what the store holds of others stays.
            rebuild: Start from an empty store; what is there goes only once there are files to read.
            progress: Told how far it is, with a model that has to be fetched too.
            on_problem: Told of each file that cannot be read, as it is met.
            on_wait: Told once if another process is writing to the store.

        Raises:
            DataError: A path does not exist, or there is nothing to read.
            StoreError: The store cannot be used, or the disk is full.
        """
        from cypher.apps.qa.index import index_paths

        given = [paths] if isinstance(paths, str | os.PathLike) else list(paths)
        self._require(given)
        if rebuild:
            find_files(given, on_error=lambda error: None)
        store = self.store(create=True, rebuild=rebuild, progress=progress, on_wait=on_wait)
        return index_paths(store, given, self.embedder(), progress=progress, on_problem=on_problem, on_wait=on_wait)

    def remove(self, paths: AnyPath | Iterable[AnyPath], *, on_wait: OnWait | None = None) -> int:
        """Take files, and all files below folders, out of the store; the files themselves stay as they are.

        No model is loaded.

        Args:
            paths: They need not exist any more.
            on_wait: Told once if another process is writing to the store.

        Returns:
            How many documents left.

        Raises:
            DataError: The store holds nothing of a path; then nothing is removed.
            StoreError: There is no store, or it cannot be used.
        """
        from cypher.apps.qa.store import PassageStore

        given = [paths] if isinstance(paths, str | os.PathLike) else list(paths)
        store = PassageStore.existing(self.store_uri)
        with store.writing(on_wait=on_wait):
            for path in given:
                if not store.documents_below(path):
                    raise DataError(f"nothing of {shown(path)} is in the store {store.folder}")
            return sum(store.remove(path) for path in given)

    def check(self, question: str, *, where: str | Filter | None = None, paths: Sequence[AnyPath] = ()) -> None:
        """Raise at once what :meth:`index` and :meth:`ask` would raise after models are loaded and files are read.

        Raises:
            DataError: The question is empty or not UTF-8, or a path does not exist.
            ConfigError: The filter does not parse.
            ModelError: There is no such reader.
        """
        if not question.strip():
            raise DataError("the question is empty", needed="at least one word")
        try:
            question.encode("utf-8")
        except UnicodeEncodeError as error:
            raise DataError(f"character {error.start + 1} of the question", needed="text in UTF-8") from error
        _parsed(where)
        if paths:
            self._require(paths)
        find_reader(self.reader_name)

    def ask(
        self,
        question: str,
        *,
        top_k_retriever: int = 10,
        top_k_reader: int = 3,
        where: str | Filter | None = None,
        paths: Sequence[AnyPath] = (),
    ) -> AskResult:
        """Answer one question.

        A question is embedded up to 256 tokens and read up to the reader's ``max_question_tokens``; one that is
        longer is answered as far as that, and ``notes`` says so.

        Args:
            question: In words.
            top_k_retriever: Passages to read.
            top_k_reader: Most answers, "no answer" not counted.
            where: Only documents whose meta passes; see :func:`cypher.documents.parse_filter`.
            paths: Only documents at or below these files and folders; none = all of the store.

        Raises:
            DataError: The question is empty or not UTF-8.
            ConfigError: The filter does not parse, or a number is out of range.
            StoreError: There is no store, or it cannot be used.
        """
        self.check(question, where=where)
        self.load()
        reader, store, embedder = self.reader(), self.store(), self.embedder()
        from cypher.apps.qa.retrieve import Retriever

        started = time.perf_counter()
        passages = Retriever(store, embedder).retrieve(
            question, top_k=top_k_retriever, where=_parsed(where), below=paths
        )
        retrieved = time.perf_counter()
        result = reader.read(question, passages, top_k=top_k_reader)
        read = time.perf_counter()
        answers = answers_of(result, passages)
        return AskResult(
            query=question,
            answers=answers,
            no_answer_score=result.no_answer_score,
            timings=Timings(
                retrieve_s=retrieved - started, read_s=read - retrieved, total_s=time.perf_counter() - started
            ),
            notes=_notes(question, reader, passages),
        )

    def _require(self, paths: Sequence[AnyPath]) -> None:
        """Refuse paths that do not exist; folders, which may have become empty, are left to the index."""
        gone = [path for path in paths if not os.path.lexists(path)]
        for path in gone:
            if self._holds(path):
                raise DataError(
                    f"{shown(path)} does not exist, and the store still holds what was read of it",
                    change=f"run `cypher qa remove {shown(path)} --store {shown(self.store_uri)}` to take it out",
                )
        files = [path for path in paths if not os.path.isdir(path)]
        if files or not paths:
            find_files(files)

    def _holds(self, path: AnyPath) -> bool:
        """Whether the store, if there is one that can be read, has something of a path."""
        from cypher.apps.qa.store import PassageStore

        try:
            return bool(PassageStore.existing(self.store_uri).documents_below(path))
        except (StoreError, ValueError):  # ValueError: a NUL character inside the path
            return False


def model_under(reader: Path, *, progress: Progress | None = None) -> Path:
    """The folder of the model that a reader's adapter stands on, fetched first where it is not on this machine.

    Args:
        reader: The reader's folder; one that was trained without an adapter has a model of its own.
        progress: Told how far the download is.
    """
    from cypher.adapters.folder import model_of
    from cypher.hub import resolve

    has_adapter = (reader / "adapter_config.json").exists()
    return resolve(model_of(reader), progress=progress) if has_adapter else reader / "model"


def answers_of(result: ReadResult, passages: Sequence[RetrievedPassage]) -> tuple[Answer, ...]:
    """What was read, with where it stands."""
    return tuple(
        Answer(answer=None, score=found.score) if found.passage is None else _placed(found, passages[found.passage])
        for found in result.answers
    )


def _placed(found: ReadAnswer, passage: RetrievedPassage) -> Answer:
    assert found.start is not None
    assert found.end is not None
    start, end = found.start - passage.start, found.end - passage.start
    left, right = context_around(passage.text, start, end)
    # Pages are joined with a form feed, and a passage may run over several.
    page = None if passage.page is None else passage.page + passage.text.count("\f", 0, start)
    return Answer(
        answer=found.text,
        score=found.score,
        context=passage.text[left:right],
        document=passage.path,
        document_id=passage.document_id,
        meta=passage.meta,
        offset_start=found.start,
        offset_end=found.end,
        page=page,
        context_start=passage.start + left,
    )


def _parsed(where: str | Filter | None) -> Filter | None:
    return parse_filter(where) if isinstance(where, str) else where


def _notes(question: str, reader: Reader, passages: Sequence[RetrievedPassage]) -> tuple[str, ...]:
    notes = []
    # A token has at least one character, so only long questions are counted.
    if len(question) > reader.max_question_tokens:
        tokens = reader.question_tokens(question)
        if tokens > reader.max_question_tokens:
            notes.append(
                f"the question has {tokens} tokens and is read up to the first {reader.max_question_tokens}; "
                "ask a shorter one"
            )
    if not passages:
        notes.append("no passage was found: the store is empty, or no document passes the filter")
    return tuple(notes)
