"""Places of words in a text: from SuperGLUE's word numbers and character offsets, checked against the text."""

from __future__ import annotations

import re

from cypher.errors import DataError

# How many words a mention may stand away from where the file says; the published data needs one.
NEARBY_WORDS = 5


def span_of_words(text: str, mention: str, *, index: int, place: str) -> tuple[int, int]:
    """Characters of a mention that the file places by the number of its first word.

    Words are what white space divides. The published numbers are off by one here and there, and the mention's
    white space, case and closing punctuation may differ from the text's: so the mention itself is looked for, and the
    occurrence nearest to the given word is taken.

    Args:
        text: Where it stands.
        mention: What should stand there.
        index: Number of its first word, from 0.
        place: Of the row, for the error.

    Returns:
        ``(start, end)`` characters of ``text``.

    Raises:
        DataError: The mention stands nowhere near that word.

    Example:
        >>> span_of_words("Ann saw it , then Bob saw it.", "it", index=6, place="WSC, line 1")
        (26, 28)
    """
    starts = [word.start() for word in re.finditer(r"\S+", text)]
    for sought in (mention, mention.strip(" \t\n.,;:!?\"'")):
        words = sought.split()
        if not words:
            continue
        pattern = r"\s+".join(re.escape(word) for word in words)
        before = r"(?<!\w)" if re.match(r"\w", words[0]) else ""
        after = r"(?!\w)" if re.search(r"\w$", words[-1]) else ""
        distances = []
        for found in re.finditer(before + pattern + after, text, flags=re.IGNORECASE):
            number = sum(start <= found.start() for start in starts) - 1
            distances.append((abs(number - index), found.span()))
        if distances and min(distances)[0] <= NEARBY_WORDS:
            return min(distances)[1]
    words_there = text.split()[max(index, 0) : index + max(1, len(mention.split()))]
    raise DataError(
        f"{place}: {mention!r} is not within {NEARBY_WORDS} words of word {index} ({' '.join(words_there)!r})",
        needed="the number of the mention's first word, counted from 0 and divided by white space",
    )


def checked_span(text: str, start: int, end: int, *, place: str) -> tuple[int, int]:
    """Character offsets of a word, checked: inside the text, without white space at its ends, from a word's start.

    Raises:
        DataError: They are not.

    Example:
        >>> checked_span("An emerging class.", 12, 17, place="WiC, line 1")
        (12, 17)
    """
    word = text[start:end] if 0 <= start < end <= len(text) else ""
    if not word or word != word.strip() or (start > 0 and text[start - 1].isalnum()):
        raise DataError(
            f"{place}: characters {start} to {end} are {word!r} in {text[:80]!r}",
            needed="the first character of a word and one past its last",
        )
    return start, end
