"""How well a system answers a file in SQuAD's format, with each question's own paragraph or having to find it."""

from __future__ import annotations

import hashlib
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

from cypher.apps.qa.index import Progress, index_documents, whole_document
from cypher.apps.qa.metrics import first_rank, mean_reciprocal_rank, recall_at
from cypher.apps.qa.question_answering import QuestionAnswering
from cypher.apps.qa.reader import ReadablePassage, Reader, ReadResult
from cypher.apps.qa.retrieve import RetrievedPassage, Retriever
from cypher.apps.qa.store import PassageStore
from cypher.apps.qa.store_settings import embedder_identity
from cypher.data.readers import SquadParagraph
from cypher.documents import Document
from cypher.errors import DataError
from cypher.tasks.answer_metrics import exact_match, token_f1
from cypher.tasks.extract_span import SpanRow
from cypher.tasks.span_rows import span_rows

Mode: TypeAlias = Literal["closed", "open"]

# Questions measured together: enough to fill batches of one length, few enough for a lively progress bar.
QUESTIONS_AT_ONCE = 64
RANKS = 10


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Scores of one file.

    F1 and exact match are percents, means over questions, with SQuAD's normalisation; an unanswerable question earns
    100 for "no answer" and else 0. Recall and reciprocal rank are shares in [0, 1] of the questions that have an
    answer, by the rank of the question's own paragraph. What does not apply is ``None``.

    Args:
        mode: ``closed``: each question with its paragraph; ``open``: with what is retrieved from all paragraphs.
        f1: Of the decision, "no answer" included, over all questions.
        exact: Likewise, exact match.
        f1_answerable: ``f1`` of the questions that have an answer.
        f1_unanswerable: ``f1`` of those that have none.
        f1_forced: Of the questions that have an answer, when the best span is always given.
        recall_at_1: Own paragraph found first.
        recall_at_10: Own paragraph among the first ten passages.
        mrr: Mean reciprocal rank within them.
        questions_per_s: Retrieving and reading; loading and indexing are not counted.
        n_questions: That were asked.
    """

    mode: Mode
    f1: float
    exact: float
    f1_answerable: float | None
    f1_unanswerable: float | None
    f1_forced: float | None
    recall_at_1: float | None
    recall_at_10: float | None
    mrr: float | None
    questions_per_s: float
    n_questions: int

    def to_dict(self) -> dict[str, Any]:
        """The JSON object; recalls are called ``recall@1`` and ``recall@10``."""
        values = dict(vars(self))
        return {name.replace("_at_", "@"): value for name, value in values.items()}


@dataclass(frozen=True, kw_only=True)
class Earned:
    """F1 and exact match in [0, 1] of one question: of the decision, and F1 of the best span."""

    f1: float
    exact: float
    forced: float


def evaluate(
    qa: QuestionAnswering,
    paragraphs: Sequence[SquadParagraph],
    *,
    mode: Mode,
    limit: int | None = None,
    top_k_retriever: int = 10,
    progress: Progress | None = None,
) -> Evaluation:
    """Ask the questions of a file and compare with its answers.

    Args:
        qa: Gives both models and the length of passages; its own store is not touched.
        paragraphs: From ``cypher.data.readers.read_squad``.
        mode: Whether the paragraph is given or must be found among all paragraphs of the file.
        limit: Ask so many of the questions, chosen by a hash of their ids; ``None`` asks all.
        top_k_retriever: Passages read in open mode.
        progress: Told how far it is.

    Raises:
        DataError: There is no question.

    Example:
        >>> from cypher.data.fetch import locate
        >>> from cypher.data.readers import read_squad
        >>> paragraphs = read_squad(locate("squad/squad2_dev_open"))  # doctest: +SKIP
        >>> evaluate(QuestionAnswering(), paragraphs, mode="closed").to_dict()["n_questions"]  # doctest: +SKIP
        2405
    """
    rows = sample(span_rows(paragraphs), limit)
    reader = qa.reader(progress=progress)
    if mode == "closed":
        given = {row.passage: whole_document(Document(text=row.passage)) for row in rows}
        return _asked(rows, mode, reader, lambda part: [given[row.passage] for row in part], None, progress)
    with tempfile.TemporaryDirectory(prefix="cypher-qa-") as folder:
        embedder = qa.embedder(progress=progress)
        retriever = Retriever(open_store(qa, Path(folder)), embedder)
        own = index_paragraphs(retriever, paragraphs, progress)
        ranks: list[int | None] = []

        def found(part: Sequence[SpanRow]) -> list[list[RetrievedPassage]]:
            depth = max(RANKS, top_k_retriever)
            # A question without a word finds nothing, and is answered with "no answer".
            asked = [row.question for row in part if row.question.strip()]
            retrieved = iter(retriever.retrieve_many(asked, top_k=depth))
            lists = [next(retrieved) if row.question.strip() else [] for row in part]
            for row, passages in zip(part, lists, strict=True):
                if row.answers:
                    ids = [passage.document_id for passage in passages[:RANKS]]
                    ranks.append(first_rank(ids, own[row.passage]))
            return [passages[:top_k_retriever] for passages in lists]

        return _asked(rows, mode, reader, found, ranks, progress)


def sample(rows: Sequence[SpanRow], limit: int | None) -> list[SpanRow]:
    """At most ``limit`` rows, those with the smallest hash of their id, in the order of the file.

    Raises:
        DataError: There is no row.
    """
    if not rows:
        raise DataError("the file has no question", needed="at least 1")
    chosen = sorted(range(len(rows)), key=lambda place: hashlib.sha256(rows[place].id.encode()).digest())[:limit]
    return [rows[place] for place in sorted(chosen)]


def open_store(qa: QuestionAnswering, folder: Path, *, words: int | None = None) -> PassageStore:
    """A store for the paragraphs of a file, with passages of ``words`` words; ``None`` takes what ``qa`` says."""
    embedder = qa.embedder()
    return PassageStore.open(
        folder,
        model=embedder_identity(embedder, name=qa.model_name),
        width=embedder.width,
        words=qa.words if words is None else words,
        overlap_words=qa.overlap_words if words is None else None,
        create=True,
    )


def index_paragraphs(
    retriever: Retriever, paragraphs: Sequence[SquadParagraph], progress: Progress | None
) -> dict[str, set[str]]:
    """Index every paragraph as a document under its article's title; gives context → ids of its documents."""
    documents = [
        Document(text=paragraph.context, meta={"title": paragraph.title.replace("_", " ")}) for paragraph in paragraphs
    ]
    index_documents(retriever.store, documents, retriever.embedder, progress=progress)
    ids: dict[str, set[str]] = defaultdict(set)
    for document in documents:
        ids[document.text].add(document.id)
    return ids


def earned(row: SpanRow, result: ReadResult) -> Earned:
    """What a result of :class:`Reader` earns on its question."""
    golds = [row.passage[start:end] for start, end in row.answers]
    decision = result.answers[0].text if result.answers else None
    best = next((answer.text for answer in result.answers if answer.text is not None), None)
    return Earned(
        f1=token_f1(decision or "", golds), exact=exact_match(decision or "", golds), forced=token_f1(best or "", golds)
    )


def _asked(
    rows: Sequence[SpanRow],
    mode: Mode,
    reader: Reader,
    passages_of: Callable[[Sequence[SpanRow]], Sequence[Sequence[ReadablePassage]]],
    ranks: list[int | None] | None,
    progress: Progress | None,
) -> Evaluation:
    """Ask in parts, and put the scores together; ``ranks`` is filled by ``passages_of``."""
    scores: list[Earned] = []
    seconds = 0.0
    for first in range(0, len(rows), QUESTIONS_AT_ONCE):
        part = rows[first : first + QUESTIONS_AT_ONCE]
        started = time.perf_counter()
        passages = passages_of(part)
        requests = [(row.question, given) for row, given in zip(part, passages, strict=True)]
        results = reader.read_many(requests, top_k=1, answers_per_window=1)
        seconds += time.perf_counter() - started
        scores += map(earned, part, results)
        if progress is not None:
            progress("answering", len(scores), len(rows))
    answerable = [score for row, score in zip(rows, scores, strict=True) if row.answers]
    unanswerable = [score for row, score in zip(rows, scores, strict=True) if not row.answers]
    return Evaluation(
        mode=mode,
        f1=percent([score.f1 for score in scores]) or 0.0,
        exact=percent([score.exact for score in scores]) or 0.0,
        f1_answerable=percent([score.f1 for score in answerable]),
        f1_unanswerable=percent([score.f1 for score in unanswerable]),
        f1_forced=percent([score.forced for score in answerable]),
        recall_at_1=recall_at(ranks, 1) if ranks else None,
        recall_at_10=recall_at(ranks, RANKS) if ranks else None,
        mrr=mean_reciprocal_rank(ranks) if ranks else None,
        questions_per_s=len(rows) / seconds,
        n_questions=len(rows),
    )


def percent(values: Sequence[float]) -> float | None:
    """Mean of shares as a percentage; ``None`` of nothing."""
    return 100 * sum(values) / len(values) if values else None
