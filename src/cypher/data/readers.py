"""Files of data sets to typed rows: SQuAD's JSON (1.1 and 2.0) and the Cranfield collection."""

from __future__ import annotations

import gzip
import json
import re
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from cypher.errors import DataError

_Value = TypeVar("_Value", str, int, bool, list[Any])
_GZIP = b"\x1f\x8b"


@dataclass(frozen=True, kw_only=True)
class SquadAnswer:
    """An annotator's answer: ``text`` stands at character ``start`` of the paragraph."""

    text: str
    start: int


@dataclass(frozen=True, kw_only=True)
class SquadQuestion:
    """A question with every annotator's answer; none when ``is_impossible``."""

    id: str
    question: str
    answers: tuple[SquadAnswer, ...]
    is_impossible: bool


@dataclass(frozen=True, kw_only=True)
class SquadParagraph:
    """A paragraph with its questions; ``title`` is its article's."""

    title: str
    context: str
    questions: tuple[SquadQuestion, ...]


@dataclass(frozen=True, kw_only=True)
class CranfieldDocument:
    """An abstract of the collection; two of the 1,400 have no text. The text repeats the title."""

    id: str
    title: str
    author: str
    bibliography: str
    text: str


@dataclass(frozen=True, kw_only=True)
class CranfieldQuery:
    """A query; ``id`` is its position from 1, by which it is judged, not the ``<num>`` of the file."""

    id: str
    text: str


class Cranfield(NamedTuple):
    """The collection. ``judgments``: query id → document id → grade, above 0 for relevant."""

    documents: list[CranfieldDocument]
    queries: list[CranfieldQuery]
    judgments: dict[str, dict[str, int]]


def read_squad(path: Path) -> list[SquadParagraph]:
    """Paragraphs of a SQuAD file, version 1.1 or 2.0, plain or gzipped.

    Raises:
        DataError: Not JSON, a field missing, or an answer that does not stand where it says; the line names
            the article, paragraph and question, counted from 0.

    Example:
        >>> from cypher.data.fetch import locate
        >>> read_squad(locate("squadshifts/new_wiki"))[0].title  # doctest: +SKIP
        'Armenian_Apostolic_Church'
    """
    try:
        content = json.loads(_read_text(path))
    except ValueError as error:
        raise DataError(f"{path} is not JSON ({error})", needed="a file in SQuAD's format") from error
    paragraphs = []
    for a, article in enumerate(_field(content, "data", list, f"{path}: the file")):
        place = f"{path}: data[{a}]"
        title = _field(article, "title", str, place, default="")
        for p, paragraph in enumerate(_field(article, "paragraphs", list, place)):
            paragraphs.append(_paragraph(paragraph, title, f"{place}.paragraphs[{p}]"))
    return paragraphs


def _paragraph(row: object, title: str, place: str) -> SquadParagraph:
    context = _field(row, "context", str, place)
    questions = []
    for q, question in enumerate(_field(row, "qas", list, place)):
        here = f"{place}.qas[{q}]"
        answers = [
            _answer(answer, context, f"{here}.answers[{n}]")
            for n, answer in enumerate(_field(question, "answers", list, here))
        ]
        impossible = _field(question, "is_impossible", bool, here, default=False)
        if impossible and answers:
            raise DataError(f"{here} is marked impossible and has {len(answers)} answers", needed="one or the other")
        questions.append(
            SquadQuestion(
                id=_field(question, "id", str, here),
                question=_field(question, "question", str, here),
                answers=tuple(answers),
                is_impossible=impossible,
            )
        )
    return SquadParagraph(title=title, context=context, questions=tuple(questions))


def _answer(row: object, context: str, place: str) -> SquadAnswer:
    text, start = _field(row, "text", str, place), _field(row, "answer_start", int, place)
    if start < 0 or not text or not context.startswith(text, start):
        found = context[max(start, 0) : max(start, 0) + len(text)]
        raise DataError(
            f"{place}: {text!r} is not at character {start} of the context (there is {found!r})",
            change="count answer_start in characters, not bytes",
        )
    return SquadAnswer(text=text, start=start)


def _field(row: object, key: str, kind: type[_Value], place: str, *, default: _Value | None = None) -> _Value:
    """A field of the wanted type, or the error that says where it is missing."""
    if not isinstance(row, dict):
        raise DataError(f"{place} is a {type(row).__name__}", needed="a JSON object")
    value = row.get(key, default)
    # A bool is an int to isinstance.
    if type(value) is not kind:
        given = "has no" if key not in row else f"has a {type(value).__name__} as"
        raise DataError(f'{place} {given} "{key}"', needed=f"a {kind.__name__}")
    return value


def read_cranfield(folder: Path) -> Cranfield:
    """The Cranfield collection from its three TREC files, plain or gzipped.

    The files are no well-formed XML (the documents have no root), so they are read by their tags. Queries are
    judged by their position: the ``<num>`` of the 225th is 365, its judgments are those of topic 225.

    Args:
        folder: With ``cran.all.1400.xml``, ``cran.qry.xml`` and ``cranqrel.trec.txt``.

    Raises:
        DataError: A file is missing or broken, or a judgment names an unknown query or document.

    Example:
        >>> from cypher.data.fetch import locate
        >>> [len(part) for part in read_cranfield(locate("cranfield"))]  # doctest: +SKIP
        [1400, 225, 225]
    """
    documents_file, queries_file, judgments_file = (
        _plain_or_gzipped(folder / name) for name in ("cran.all.1400.xml", "cran.qry.xml", "cranqrel.trec.txt")
    )
    documents = [
        CranfieldDocument(
            id=_tag(block, "docno", place),
            title=_tag(block, "title", place),
            author=_tag(block, "author", place),
            bibliography=_tag(block, "bib", place),
            text=_tag(block, "text", place),
        )
        for block, place in _blocks(documents_file, "doc")
    ]
    queries = [
        CranfieldQuery(id=str(position), text=_tag(block, "title", place))
        for position, (block, place) in enumerate(_blocks(queries_file, "top"), start=1)
    ]
    judgments = _judgments(judgments_file, {query.id for query in queries}, {row.id for row in documents})
    return Cranfield(documents, queries, judgments)


def _judgments(path: Path, queries: set[str], documents: set[str]) -> dict[str, dict[str, int]]:
    judgments: dict[str, dict[str, int]] = {}
    for number, line in enumerate(_read_text(path).splitlines(), start=1):
        fields = line.split()
        if len(fields) != 4 or not fields[3].lstrip("-").isdigit():
            raise DataError(f"{path}, line {number}: {line!r}", needed="topic, iteration, document, grade")
        query, _, document, grade = fields
        if query not in queries or document not in documents:
            raise DataError(f"{path}, line {number}: query {query} or document {document} is not in the collection")
        judgments.setdefault(query, {})[document] = int(grade)
    return judgments


def _blocks(path: Path, tag: str) -> list[tuple[str, str]]:
    """The contents of every ``<tag>``, each with its place for an error."""
    text = _read_text(path).replace("\r\n", "\n")
    found = re.findall(rf"<{tag}>(.*?)</{tag}>", text, flags=re.DOTALL)
    if not found:
        raise DataError(f"{path} has no <{tag}>", needed="the collection's TREC format")
    return [(block, f"{path}, <{tag}> {n}") for n, block in enumerate(found, start=1)]


def _tag(block: str, tag: str, place: str) -> str:
    found = re.search(rf"<{tag}>(.*?)</{tag}>", block, flags=re.DOTALL)
    if found is None:
        raise DataError(f"{place} has no <{tag}>", needed="the collection's TREC format")
    return found[1].strip()


def _plain_or_gzipped(path: Path) -> Path:
    for found in (path, path.with_name(path.name + ".gz")):
        if found.is_file():
            return found
    raise DataError(f"there is no {path}, plain or .gz", change="run `cypher data fetch cranfield`")


def _read_text(path: Path) -> str:
    try:
        content = path.read_bytes()
        return (gzip.decompress(content) if content.startswith(_GZIP) else content).decode("utf-8")
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{path} is a broken gzip file ({error})", change="fetch it again") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 ({error})") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror or error})") from error
