"""SuperGLUE's official JSONL as typed rows, a type for each form of task (Wang et al. 2019, arXiv 1905.00537).

Labels keep the type they have in the files, so that a submission writes them back as they came; they are ``None``
in test files.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

from cypher.apps.superglue.jsonl import Fields
from cypher.apps.superglue.word_spans import checked_span, span_of_words
from cypher.errors import DataError

PLACEHOLDER = "@placeholder"
"""What stands for the missing entity in a query of ReCoRD."""

CB_LABELS = ("entailment", "contradiction", "neutral")
RTE_LABELS = ("entailment", "not_entailment")


@dataclass(frozen=True, kw_only=True)
class BoolQRow:
    """A yes-or-no question about a passage."""

    idx: int
    question: str
    passage: str
    label: bool | None = None


@dataclass(frozen=True, kw_only=True)
class EntailmentRow:
    """CB, RTE and the diagnostics: does the premise entail the hypothesis?

    Args:
        idx: Of the row.
        premise: What is given; ``sentence1`` in AX-b.
        hypothesis: What may follow; ``sentence2`` in AX-b.
        label: One of the task's.
        pair_id: In AX-g, what the two rows that differ in gender alone have in common.
    """

    idx: int
    premise: str
    hypothesis: str
    label: str | None = None
    pair_id: int | None = None


@dataclass(frozen=True, kw_only=True)
class CopaRow:
    """Which of two sentences is the cause or the effect of a premise; ``label`` is 0 for the first."""

    idx: int
    premise: str
    question: Literal["cause", "effect"]
    choices: tuple[str, str]
    label: int | None = None


@dataclass(frozen=True, kw_only=True)
class MultiRcAnswer:
    """An answer that may be right (1) or wrong (0), whatever the others are."""

    idx: int
    text: str
    label: int | None = None


@dataclass(frozen=True, kw_only=True)
class MultiRcQuestion:
    """A question with its answers, any number of them right."""

    idx: int
    question: str
    answers: tuple[MultiRcAnswer, ...]


@dataclass(frozen=True, kw_only=True)
class MultiRcRow:
    """A passage with its questions."""

    idx: int
    passage: str
    questions: tuple[MultiRcQuestion, ...]


@dataclass(frozen=True, kw_only=True)
class RecordQuery:
    """A sentence whose entity is missing.

    Args:
        idx: Of the query; the submission goes by it, not by the passage's.
        query: With ``@placeholder``.
        answers: Texts that are right, each once; ``None`` in test files.
    """

    idx: int
    query: str
    answers: tuple[str, ...] | None = None


@dataclass(frozen=True, kw_only=True)
class RecordRow:
    """A news article with its queries; ``mentions`` are its entities' texts, once for each place they stand at."""

    idx: int
    passage: str
    mentions: tuple[str, ...]
    queries: tuple[RecordQuery, ...]

    @property
    def entities(self) -> tuple[str, ...]:
        """Each text once, in the order of the article."""
        return tuple(dict.fromkeys(self.mentions))


@dataclass(frozen=True, kw_only=True)
class WicRow:
    """Whether a word has one meaning in two sentences; spans are ``(start, end)`` characters."""

    idx: int
    word: str
    sentence1: str
    sentence2: str
    span1: tuple[int, int]
    span2: tuple[int, int]
    label: bool | None = None


@dataclass(frozen=True, kw_only=True)
class WscRow:
    """Whether a pronoun (``span2``) refers to a noun phrase (``span1``); spans are ``(start, end)`` characters."""

    idx: int
    text: str
    span1: tuple[int, int]
    span2: tuple[int, int]
    label: bool | None = None


Row: TypeAlias = BoolQRow | EntailmentRow | CopaRow | MultiRcRow | RecordRow | WicRow | WscRow


def parse_boolq(line: Fields) -> BoolQRow:
    """A line of BoolQ."""
    return BoolQRow(
        idx=line.get("idx", int),
        question=line.text("question"),
        passage=line.text("passage"),
        label=line.label((False, True)),
    )


def entailment_parser(
    labels: tuple[str, ...], *, premise: str = "premise", hypothesis: str = "hypothesis"
) -> Callable[[Fields], EntailmentRow]:
    """The parser of a task of this form.

    Args:
        labels: That it has.
        premise: Key of what is given.
        hypothesis: Key of what may follow.
    """

    def parse(line: Fields) -> EntailmentRow:
        return EntailmentRow(
            idx=line.get("idx", int),
            premise=line.text(premise),
            hypothesis=line.text(hypothesis),
            label=line.label(labels),
            pair_id=line.get("pair_id", int) if "pair_id" in line.values else None,
        )

    return parse


def parse_copa(line: Fields) -> CopaRow:
    """A line of COPA."""
    asked = line.get("question", str)
    if asked not in ("cause", "effect"):
        raise DataError(f"{line.place}: question = {asked!r}", needed="cause or effect")
    return CopaRow(
        idx=line.get("idx", int),
        premise=line.text("premise"),
        question="cause" if asked == "cause" else "effect",
        choices=(line.text("choice1"), line.text("choice2")),
        label=line.label((0, 1)),
    )


def parse_multirc(line: Fields) -> MultiRcRow:
    """A line of MultiRC: a passage with all its questions."""
    passage = line.inner("passage")
    questions = []
    for question in passage.each("questions"):
        # A few published answers are blank; they are answers all the same, and the leaderboard wants their labels.
        answers = tuple(
            MultiRcAnswer(idx=answer.get("idx", int), text=answer.get("text", str), label=answer.label((0, 1)))
            for answer in question.each("answers")
        )
        if not answers:
            raise DataError(f"{question.place}: answers is empty", needed="at least 1 answer")
        _unique([answer.idx for answer in answers], "answers", question.place)
        questions.append(
            MultiRcQuestion(idx=question.get("idx", int), question=question.text("question"), answers=answers)
        )
    _unique([question.idx for question in questions], "questions", passage.place)
    return MultiRcRow(idx=line.get("idx", int), passage=passage.text("text"), questions=tuple(questions))


def parse_record(line: Fields) -> RecordRow:
    """A line of ReCoRD: an article with its entities and queries. Ends of entities are inclusive in the file."""
    passage = line.inner("passage")
    text = passage.text("text")
    mentions = tuple(_entity(entity, text) for entity in passage.each("entities"))
    if not mentions:
        raise DataError(f"{passage.place}: entities is empty", needed="at least 1 entity")
    queries = tuple(_query(query) for query in line.each("qas"))
    return RecordRow(idx=line.get("idx", int), passage=text, mentions=mentions, queries=queries)


def _entity(entity: Fields, text: str) -> str:
    start, end = entity.get("start", int), entity.get("end", int) + 1
    if not 0 <= start < end <= len(text) or not text[start:end].strip():
        raise DataError(
            f"{entity.place}: characters {start} to {end - 1} of a passage of {len(text)}",
            needed="the first and the last character of an entity",
        )
    return text[start:end]


def _query(query: Fields) -> RecordQuery:
    text = query.text("query")
    if PLACEHOLDER not in text:
        raise DataError(f"{query.place}: query = {text[:80]!r}", needed=f"a text with {PLACEHOLDER}")
    answers = None
    if query.values.get("answers"):
        answers = tuple(dict.fromkeys(answer.text("text") for answer in query.each("answers")))
    return RecordQuery(idx=query.get("idx", int), query=text, answers=answers)


def parse_wic(line: Fields) -> WicRow:
    """A line of WiC."""
    sentences = line.text("sentence1"), line.text("sentence2")
    spans = [
        checked_span(
            sentence,
            line.get(f"start{number}", int),
            line.get(f"end{number}", int),
            place=f"{line.place}, sentence{number}",
        )
        for number, sentence in enumerate(sentences, start=1)
    ]
    return WicRow(
        idx=line.get("idx", int),
        word=line.text("word"),
        sentence1=sentences[0],
        sentence2=sentences[1],
        span1=spans[0],
        span2=spans[1],
        label=line.label((False, True)),
    )


def parse_wsc(line: Fields) -> WscRow:
    """A line of WSC; see :func:`cypher.apps.superglue.word_spans.span_of_words` for its word numbers."""
    text, target = line.text("text"), line.inner("target")
    spans = [
        span_of_words(
            text,
            target.text(f"span{number}_text"),
            index=target.get(f"span{number}_index", int),
            place=f"{target.place}.span{number}",
        )
        for number in (1, 2)
    ]
    return WscRow(idx=line.get("idx", int), text=text, span1=spans[0], span2=spans[1], label=line.label((False, True)))


def _unique(idx: list[int], what: str, place: str) -> None:
    if len(set(idx)) < len(idx):
        twice = next(number for number in idx if idx.count(number) > 1)
        raise DataError(f"{place}: two {what} have idx {twice}", needed="an idx of its own for each")
