"""Documents cut into passages of whole sentences: what is indexed, found and read."""

from __future__ import annotations

import re
from bisect import bisect_right
from dataclasses import dataclass

from cypher.documents.document import Document
from cypher.documents.markdown import find_headings
from cypher.documents.sentences import split_sentences
from cypher.errors import ConfigError

# One unit of length. A Chinese or Japanese character counts as a word, for there are no spaces to count;
# a run without spaces counts once for every 24 characters, so that no unit is ever longer than that.
_IDEOGRAPHS = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_UNIT = re.compile(rf"[{_IDEOGRAPHS}]|[^\s{_IDEOGRAPHS}]{{1,24}}")
_UNUSUAL = re.compile(rf"[{_IDEOGRAPHS}]|\S{{25}}")
_NEWLINES = re.compile(r"[\r\n\f]")
_SPACES = re.compile(r"\s")
# Formats whose text has, or was given, Markdown's marks for headings.
_WITH_HEADINGS = frozenset({"markdown", "html", "docx"})


@dataclass(frozen=True, kw_only=True)
class Passage:
    """A stretch of a document, long enough to answer from and short enough for a model.

    Args:
        document_id: ``Document.id`` of where it comes from.
        text: ``document.text[start:end]``.
        start: First character in the document.
        end: One past the last character.
        page: Page of the first character, from 1; ``None`` when the document has no pages.
        index: Number of the passage in its document, from 0.
        heading: Nearest heading at or above the first character, else the document's title, else empty.
    """

    document_id: str
    text: str
    start: int
    end: int
    page: int | None
    index: int
    heading: str


@dataclass(frozen=True, slots=True)
class _Piece:
    """A sentence, or a part of one that alone is too long."""

    start: int
    end: int
    n_words: int
    opens_section: bool


def default_overlap(words: int) -> int:
    """Words that neighbours share unless somebody says otherwise: a fifth of a passage.

    Example:
        >>> default_overlap(150)
        30
    """
    return words // 5


def check_passage_words(words: int, overlap_words: int) -> None:
    """Refuse lengths that no document can be cut by.

    Args:
        words: Most words a passage has.
        overlap_words: Most words that two neighbours share.

    Raises:
        ConfigError: ``words`` below 1, or ``overlap_words`` not in ``[0, words)``.
    """
    if words < 1:
        raise ConfigError(f"words = {words}", needed="at least 1 word a passage")
    if not 0 <= overlap_words < words:
        raise ConfigError(f"overlap_words = {overlap_words}", needed=f"0 to {words - 1} (words is {words})")


def split_passages(document: Document, *, words: int = 150, overlap_words: int = 30) -> list[Passage]:
    """Cuts a document into passages that overlap by whole sentences.

    A passage takes sentences while it stays within ``words``; the next one repeats as many of its last
    sentences as fit into ``overlap_words``. A heading starts a new passage without overlap once the one
    before has a third of ``words``. A sentence longer than ``words`` is cut at a line end or a space.
    Every character that is not white space is in at least one passage.

    Args:
        document: Any document.
        words: Most words a passage has. A Chinese or Japanese character counts as a word, and so do 24
            characters without a space.
        overlap_words: Most words that two neighbours share, less than ``words``.

    Returns:
        Passages in order of their start; none for a document of white space.

    Raises:
        ConfigError: ``words`` below 1, or ``overlap_words`` not in ``[0, words)``.

    Example:
        >>> document = Document(text="One two three. Four five six. Seven eight nine.")
        >>> [passage.text for passage in split_passages(document, words=6, overlap_words=3)]
        ['One two three. Four five six.', 'Four five six. Seven eight nine.']
    """
    check_passage_words(words, overlap_words)
    text = document.text
    headings = find_headings(text) if document.meta.get("format") in _WITH_HEADINGS else []
    pieces = _pieces(text, words, {heading.start for heading in headings})
    title = str(document.meta.get("title") or "")
    heading_starts = [heading.start for heading in headings]
    passages = []
    for index, (first, last) in enumerate(_groups(pieces, words, overlap_words)):
        start, end = pieces[first].start, pieces[last].end
        above = bisect_right(heading_starts, start)
        passages.append(
            Passage(
                document_id=document.id,
                text=text[start:end],
                start=start,
                end=end,
                page=document.page_at(start),
                index=index,
                heading=headings[above - 1].title if above else title,
            )
        )
    return passages


def _groups(pieces: list[_Piece], words: int, overlap_words: int) -> list[tuple[int, int]]:
    """First and last piece of each passage."""
    groups: list[tuple[int, int]] = []
    first, n_words = 0, 0
    for index, piece in enumerate(pieces):
        new_section = piece.opens_section and n_words * 3 >= words
        if index > first and (new_section or n_words + piece.n_words > words):
            groups.append((first, index - 1))
            # What is repeated must leave room for the new piece, or passages would outgrow the limit.
            room = 0 if new_section else min(overlap_words, words - piece.n_words)
            first, n_words = index, 0
            while first - 1 > groups[-1][0] and n_words + pieces[first - 1].n_words <= room:
                first -= 1
                n_words += pieces[first].n_words
        n_words += piece.n_words
    if pieces:
        groups.append((first, len(pieces) - 1))
    return groups


def _pieces(text: str, words: int, heading_starts: set[int]) -> list[_Piece]:
    pieces: list[_Piece] = []
    for start, end in split_sentences(text):
        opens_section = start in heading_starts
        sentence = text[start:end]
        n_words = len(_UNIT.findall(sentence)) if _UNUSUAL.search(sentence) else len(sentence.split())
        if n_words <= words:
            pieces.append(_Piece(start, end, n_words, opens_section))
        else:
            pieces += _cut(text, start, end, words, opens_section)
    return pieces


def _cut(text: str, start: int, end: int, words: int, opens_section: bool) -> list[_Piece]:
    """Parts of a long sentence, each of at most ``words``, cut where it hurts least."""
    pieces: list[_Piece] = []
    while start < end:
        units = _next_units(text, start, end, words + 1)
        if len(units) <= words:
            pieces.append(_Piece(start, end, len(units), opens_section))
            break
        border = _best_border(text, start, units[-1][0])
        kept = [unit for unit in units if unit[1] <= border]
        pieces.append(_Piece(start, kept[-1][1], len(kept), opens_section))
        start, opens_section = units[len(kept)][0], False
    return pieces


def _next_units(text: str, start: int, end: int, count: int) -> list[tuple[int, int]]:
    units: list[tuple[int, int]] = []
    for match in _UNIT.finditer(text, start, end):
        units.append(match.span())
        if len(units) == count:
            break
    return units


def _best_border(text: str, start: int, limit: int) -> int:
    """The last line end, else the last space, in the second half of ``[start, limit]``; else ``limit``."""
    for pattern in (_NEWLINES, _SPACES):
        borders = [match.start() for match in pattern.finditer(text, (start + limit) // 2, limit)]
        if borders:
            return borders[-1]
    return limit
