"""Answers out of passages: every window of every passage is read, the spans compete, and so does "no answer".

What a score means. A span's *margin* is its start plus end logit minus those of "no answer" in its own window, so
margins compare across windows, passages and documents. Its *score* is the calibrated chance that it is right,
read from its own passage alone; scores of several answers need not sum to one. ``no_answer_score`` is the chance
that all kept answers are wrong if they err independently, the product of ``1 - score``.

The *decision* is not taken from that product but from the reader's threshold, which was chosen on held-out
questions: with no margin at or above it, "no answer" stands first, otherwise it never does. The threshold is one
passage's: a question is answered as soon as one of its passages, read alone, would have answered it. So more
passages can only turn "no answer" into an answer, never the other way round.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Protocol

from cypher.config import ExtractSpanConfig, InferencePrecision
from cypher.errors import ConfigError
from cypher.layers.precision import fastest_precision
from cypher.tasks.calibration import Calibration
from cypher.tasks.extract_span import ExtractSpan, SpanCandidate, SpanRow
from cypher.tasks.reader_folder import SpanReader

# Pairs of question and passage whose windows are in memory together; enough to fill batches of one length.
PAIRS_AT_ONCE = 2048


class ReadablePassage(Protocol):
    """A stretch of a document; every passage of the store is one."""

    @property
    def text(self) -> str:
        """The characters that are read."""

    @property
    def document_id(self) -> str:
        """Passages of one document may overlap, and their answers are then one answer."""

    @property
    def start(self) -> int:
        """First character in the document."""


@dataclass(frozen=True, kw_only=True)
class ReadAnswer:
    """One answer, or "no answer" with ``None`` for everything but the score.

    Args:
        text: The characters of the document.
        score: Chance that it is right, in [0, 1]; for "no answer" the result's ``no_answer_score``.
        margin: Start plus end logit minus those of "no answer"; what the threshold is compared with.
        passage: Its place in the list of passages.
        start: First character in the document, not in the passage.
        end: One past its last.
    """

    text: str | None
    score: float
    margin: float | None = None
    passage: int | None = None
    start: int | None = None
    end: int | None = None


@dataclass(frozen=True, kw_only=True)
class ReadResult:
    """What was read for one question.

    Args:
        answers: By falling score; "no answer" among them at its score, but first exactly when it is the decision.
        no_answer_score: Chance that no kept answer is right; 1.0 when there is none.
    """

    answers: tuple[ReadAnswer, ...]
    no_answer_score: float


class Reader:
    """Reads passages with a trained span reader.

    Args:
        span_reader: From ``cypher.tasks.reader_folder.load_reader``; its weights are laid out for inference and
            cannot be trained afterwards.
        precision: Of the arithmetic; ``auto`` takes the faster of fp32 and bf16 on this machine.
        max_answer_tokens: Longest answer; ``None`` takes what the reader was trained with.

    Raises:
        ConfigError: A precision without kernels here, or ``max_answer_tokens`` below 1.

    Example:
        >>> from cypher.documents import Document, split_passages
        >>> from cypher.tasks.find_reader import find_reader
        >>> from cypher.tasks.reader_folder import load_reader
        >>> passages = split_passages(Document(text="The tower was finished in 1889."))
        >>> reader = Reader(load_reader(find_reader("minilm-qa")))  # doctest: +SKIP
        >>> reader.read("When was the tower finished?", passages).answers[0].text  # doctest: +SKIP
        '1889'
    """

    def __init__(
        self,
        span_reader: SpanReader,
        *,
        precision: InferencePrecision = "auto",
        max_answer_tokens: int | None = None,
    ) -> None:
        self.precision: InferencePrecision = fastest_precision() if precision == "auto" else precision
        self.calibration: Calibration = span_reader.calibration
        self.task = span_reader.task
        if max_answer_tokens is not None:
            self.task = _with_longest_answer(span_reader, max_answer_tokens)
        self.model = span_reader.model
        self.model.model.pack(self.precision)

    @property
    def max_question_tokens(self) -> int:
        """A longer question is read up to here."""
        return self.task.config.max_question_tokens

    def question_tokens(self, query: str) -> int:
        """Tokens of a question, before it is cut."""
        return len(self.task.tokenizer.encode(query, add_special_tokens=False).ids)

    def read(
        self,
        query: str,
        passages: Sequence[ReadablePassage],
        *,
        top_k: int = 3,
        answers_per_window: int = 20,
        no_answer: bool = True,
        overlap_threshold: float = 0.01,
    ) -> ReadResult:
        """Answer one question; arguments and errors as in :meth:`read_many`."""
        return self.read_many(
            [(query, passages)],
            top_k=top_k,
            answers_per_window=answers_per_window,
            no_answer=no_answer,
            overlap_threshold=overlap_threshold,
        )[0]

    def read_many(
        self,
        requests: Sequence[tuple[str, Sequence[ReadablePassage]]],
        *,
        top_k: int = 3,
        answers_per_window: int = 20,
        no_answer: bool = True,
        overlap_threshold: float = 0.01,
    ) -> list[ReadResult]:
        """Answer many questions; windows of different questions share batches, sorted by length.

        Args:
            requests: ``(question, passages)`` each; no passages give no answers.
            top_k: Most answers a question, "no answer" not counted; 0 gives none.
            answers_per_window: Spans that compete from each window. Those of one window mostly overlap, so a few
                more than ``top_k`` are needed to find others.
            no_answer: Whether "no answer" competes.
            overlap_threshold: Two answers of one document are the same if they share more than this part of the
                shorter one; the lower is dropped. 0 drops every overlap, 1 none.

        Returns:
            One result a request, in order.

        Raises:
            ConfigError: A number outside its range.
        """
        _check(top_k=top_k, answers_per_window=answers_per_window, overlap_threshold=overlap_threshold)
        found: list[list[tuple[SpanCandidate, int]]] = [[] for _ in requests]
        pairs = [(number, place) for number, (_, given) in enumerate(requests) for place in range(len(given))]
        for first in range(0, len(pairs), PAIRS_AT_ONCE):
            part = pairs[first : first + PAIRS_AT_ONCE]
            # Questions about one passage follow each other, so that the task tokenises it once.
            part.sort(key=lambda pair: requests[pair[0]][1][pair[1]].text)
            windows = []
            for row, (number, place) in enumerate(part):
                question, passages = requests[number]
                about = SpanRow(id="", question=question, passage=passages[place].text)
                windows += self.task.encode(about, index=row)
            for row, span in self.task.candidates(self.model, windows, top_k=answers_per_window):
                number, place = part[row]
                found[number].append((span, place))
        return [
            self._decide(passages, spans, top_k=top_k, no_answer=no_answer, overlap_threshold=overlap_threshold)
            for (_, passages), spans in zip(requests, found, strict=True)
        ]

    def _decide(
        self,
        passages: Sequence[ReadablePassage],
        spans: Iterable[tuple[SpanCandidate, int]],
        *,
        top_k: int,
        no_answer: bool,
        overlap_threshold: float,
    ) -> ReadResult:
        """The best spans that are not the same, and the place of "no answer" among them."""
        kept: list[ReadAnswer] = []
        for span, place in sorted(spans, key=lambda found: (-found[0].score, found[1], found[0].start)):
            if len(kept) == top_k:
                break
            passage = passages[place]
            answer = ReadAnswer(
                text=passage.text[span.start : span.end],
                score=self.calibration.probability(span.score),
                margin=span.score,
                passage=place,
                start=passage.start + span.start,
                end=passage.start + span.end,
            )
            if not any(_same(answer, other, passages, overlap_threshold) for other in kept):
                kept.append(answer)
        no_answer_score = prod(1 - answer.score for answer in kept)
        if no_answer:
            answered = bool(kept) and (kept[0].margin or 0.0) >= self.calibration.threshold
            above = sum(answer.score >= no_answer_score for answer in kept)
            kept.insert(max(1, above) if answered else 0, ReadAnswer(text=None, score=no_answer_score))
        return ReadResult(answers=tuple(kept), no_answer_score=no_answer_score)


def _same(answer: ReadAnswer, other: ReadAnswer, passages: Sequence[ReadablePassage], overlap_threshold: float) -> bool:
    """Whether two answers are one, by their places in the document: passages of one document overlap."""
    assert answer.passage is not None
    assert answer.start is not None
    assert answer.end is not None
    assert other.passage is not None
    assert other.start is not None
    assert other.end is not None
    if passages[answer.passage].document_id != passages[other.passage].document_id:
        return False
    if (answer.start, answer.end) == (other.start, other.end):
        return True  # read in two windows, or in two passages that overlap
    shared = min(answer.end, other.end) - max(answer.start, other.start)
    shorter = min(answer.end - answer.start, other.end - other.start)
    return shared > 0 and shared > overlap_threshold * shorter


def _with_longest_answer(span_reader: SpanReader, max_answer_tokens: int) -> ExtractSpan:
    if max_answer_tokens < 1:
        raise ConfigError(f"max_answer_tokens = {max_answer_tokens}", needed="at least 1 token")
    task = span_reader.task
    values = {**task.config.model_dump(), "max_answer_tokens": max_answer_tokens}
    return ExtractSpan(
        ExtractSpanConfig.model_validate(values),
        tokenizer=task.tokenizer,
        special=task.special,
        segments=task.segments,
    )


def _check(*, top_k: int, answers_per_window: int, overlap_threshold: float) -> None:
    if top_k < 0:
        raise ConfigError(f"top_k = {top_k}", needed="at least 0 answers")
    if answers_per_window < 1:
        raise ConfigError(f"answers_per_window = {answers_per_window}", needed="at least 1 span")
    if not 0 <= overlap_threshold <= 1:
        raise ConfigError(f"overlap_threshold = {overlap_threshold}", needed="a share from 0 to 1")
