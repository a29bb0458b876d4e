"""Sentence borders in exact characters, by rules: no model, no dictionary beyond the lists below."""

from __future__ import annotations

import re

# One newline in any convention; the look-ahead keeps "\r\n" from counting as two.
_NEWLINE = r"(?:\r\n|\n|\r(?!\n)|\u2028)"
_BLANK = r"[^\S\r\n\f\u2028\u2029]*"
_LIST_MARK = r"(?:[-*+•‣◦–—]|\d{1,3}\.|\(?(?:\d{1,3}|[a-z])\))[^\S\r\n]"
_CLOSERS = r"""["'”’»›)\]}*_]*"""
_BORDERS = re.compile(
    rf"""(?P<paragraph>
        {_NEWLINE}{_BLANK}{_NEWLINE}
      | [\f\u2029]
      | {_NEWLINE}(?={_BLANK}(?:{_LIST_MARK}|\#{{1,6}}[ \t]|\|))
      | (?<=\|)[ \t]*{_NEWLINE})
    | (?P<wide>[。！？｡]+[」』”’）》〉】]*)
    | (?P<stop>(?<![.!?…।॥؟۔])[.!?…।॥؟۔]+{_CLOSERS})(?=\s)
    """,
    re.VERBOSE,
)
_HEADING_LINE = re.compile(r"[ ]{0,3}#{1,6}[ \t]")
_LINE_END = re.compile(r"[\r\n\u2028]")
_NEXT_WORD = re.compile(r"""\s*["'“‘«(\[*_¿¡]*(?P<word>\w+)?""")

# Followed by a name or a number, never by a new sentence.
_TITLES_WORDS = (
    "dr mr mrs ms messrs prof st gen sen rep gov capt cpt lt col sgt maj adm cmdr rev hon pres supt mt ft"
    " vs cf e.g i.e viz approx ca resp incl excl"
)
_TITLES = frozenset(_TITLES_WORDS.split())
# Followed by a number or a bracket, else they end a sentence like any word ("the answer is no.").
_COUNTED_WORDS = (
    "no nos vol vols fig figs eq eqs sec secs ch chap p pp art par para ref refs tab app al ed eds"
    " jan feb mar apr jun jul aug sep sept oct nov dec"
)
_COUNTED = frozenset(_COUNTED_WORDS.split())
_INITIALS = re.compile(r"(?:[^\W\d_]\.)*[^\W\d_]")
# After initials ("J. K. Rowling", "the U.S. Army") only these words are taken for a new sentence.
_OPENERS_WORDS = (
    "A After All Although An And As At Because But By For From He Her Here His How However I If In It Its"
    " Many Most My No Not Now On One Other Our Several She Since So Some Such That The Their Then There"
    " These They This Those Thus To Today We Were What When Where Which While Who Why With You Your"
)
_OPENERS = frozenset(_OPENERS_WORDS.split())


def split_sentences(text: str) -> list[tuple[int, int]]:
    """Start and end character of every sentence, without the white space around it.

    Blank lines, form feeds, headings, list items and table rows are always borders; a single newline is
    not, because wrapped text has them anywhere. Every character that is not white space lies in exactly
    one sentence.

    Args:
        text: Any text, any newline convention.

    Returns:
        ``(start, end)`` pairs in order, none empty.

    Example:
        >>> text = "Dr. J. K. Smith paid 3.50 dollars. He left!"
        >>> [text[start:end] for start, end in split_sentences(text)]
        ['Dr. J. K. Smith paid 3.50 dollars.', 'He left!']
    """
    sentences: list[tuple[int, int]] = []
    start = 0
    for match in _BORDERS.finditer(text):
        if match.lastgroup == "stop" and not _ends_sentence(text, start, match.start(), match.end()):
            continue
        _add(sentences, text, start, match.end())
        start = match.end()
    _add(sentences, text, start, len(text))
    return sentences


def _add(sentences: list[tuple[int, int]], text: str, start: int, end: int) -> None:
    stretch = text[start:end]
    words = stretch.strip()
    if not words:
        return
    start += len(stretch) - len(stretch.lstrip())
    end = start + len(words)
    # A heading ends with its line, even when the text goes on right below it.
    heading_end = _LINE_END.search(text, start, end) if _HEADING_LINE.match(words) else None
    if heading_end:
        sentences.append((start, start + len(text[start : heading_end.start()].rstrip())))
        _add(sentences, text, heading_end.end(), end)
    else:
        sentences.append((start, end))


def _ends_sentence(text: str, sentence_start: int, start: int, end: int) -> bool:
    """Whether the stop at ``[start, end)``, with white space after it, closes the sentence."""
    following = _NEXT_WORD.match(text, end)
    assert following is not None, "every part of the pattern is optional"
    next_word = following["word"]
    if next_word and next_word[0].islower():
        return False
    closed_quote = text[end - 1] in "\"'”’»›"
    if text[start] != "." or text[start : start + 2] == ".." or closed_quote:
        return True
    before = text[max(sentence_start, start - 24) : start].split()
    word = before[-1].lstrip("\"'“‘«([{*_") if before else ""
    lowered = word.lower()
    if lowered in _TITLES:
        return False
    if lowered in _COUNTED and not (len(word) == 1 and word.isupper()):
        opener = text[end : following.end()].lstrip()[:1]
        return not (opener in {"(", "["} or (next_word is not None and next_word[0].isdigit()))
    if _INITIALS.fullmatch(word):
        # "I" ends sentences ("my friend and I."); other single letters are initials.
        return word == "I" or next_word is None or next_word in _OPENERS
    # "1. First point": a number that opens the line or the sentence is its mark, not its end.
    return not (word.isdigit() and len(word) <= 3 and not text[sentence_start : start - len(word)].strip())
