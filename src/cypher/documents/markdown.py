"""Markdown: kept as the file itself; its headings are found by place."""

from __future__ import annotations

import re
from typing import NamedTuple

from cypher.documents.document import Document, MetaValue
from cypher.documents.text import decode_text


class Heading(NamedTuple):
    """A heading line: where it starts (character), its level from 1, and its words."""

    start: int
    level: int
    title: str


# A line that opens or closes code, an ATX heading, or words underlined with = or - (setext).
_LINES = re.compile(
    r"""^[ ]{0,3}(?:
        (?P<fence>`{3,}|~{3,})[^\r\n]*
      | (?P<marks>\#{1,6})[ \t]+(?P<title>[^\r\n]*)
      | (?P<words>[^\s\#>|=*+-][^\r\n]*)(?:\r\n|\r|\n)[ ]{0,3}(?P<under>={2,}|-{2,})[ \t]*(?![^\r\n])
    )""",
    re.VERBOSE | re.MULTILINE,
)
_FRONT_MATTER = re.compile(r"\A---[ \t]*\r?\n(?P<body>.*?)^---[ \t]*\r?$", re.DOTALL | re.MULTILINE)
_FRONT_TITLE = re.compile(r"^title[ \t]*:[ \t]*(?P<title>[^\r\n]+)", re.MULTILINE)
# Inline marks of emphasis and code, and links reduced to their words; an address may have parentheses of its own. No
# part runs over what could open it anew, so that a line of nothing but "[" is passed over once.
_INLINE = re.compile(r"!?\[(?P<words>[^\[\]]*)\]\([^()]*(?:\([^()]*\)[^()]*)*\)|[*`]+|<[^<>]*>")


def find_headings(text: str) -> list[Heading]:
    r"""Headings of a Markdown text in order, code blocks left out.

    Example:
        >>> find_headings("# Guide\n\ntext\n\n## `Install` it\n")
        [Heading(start=0, level=1, title='Guide'), Heading(start=15, level=2, title='Install it')]
    """
    front = _FRONT_MATTER.match(text)
    headings: list[Heading] = []
    fence = ""
    # Lone carriage returns are newlines of old files; the search sees them without moving an offset.
    searched = re.sub(r"\r(?!\n)", "\n", text)
    for match in _LINES.finditer(searched, front.end() if front else 0):
        mark = match["fence"]
        if fence:
            if mark and mark.startswith(fence) and not match[0].strip().strip(mark[0]):
                fence = ""
        elif mark:
            fence = mark
        elif match["marks"]:
            headings.append(Heading(match.start("marks"), len(match["marks"]), _plain(match["title"].rstrip(" \t#"))))
        else:
            level = 1 if match["under"][0] == "=" else 2
            headings.append(Heading(match.start("words"), level, _plain(match["words"])))
    return [heading for heading in headings if heading.title]


def _plain(title: str) -> str:
    return " ".join(_INLINE.sub(lambda match: match["words"] or "", title).split())


def read_markdown(content: bytes, path: str) -> Document:
    """A Markdown file, character for character; the title is the front matter's or the first heading.

    Args:
        content: Bytes of the file.
        path: Where it came from.

    Raises:
        DataError: Binary content.

    Example:
        >>> dict(read_markdown(b"# Guide", "guide.md").meta)
        {'path': 'guide.md', 'format': 'markdown', 'encoding': 'utf-8', 'title': 'Guide'}
    """
    text, encoding = decode_text(content, path)
    meta: dict[str, MetaValue] = {"path": path, "format": "markdown", "encoding": encoding}
    title = _title(text)
    if title:
        meta["title"] = title
    return Document(text=text, meta=meta)


def _title(text: str) -> str:
    front = _FRONT_MATTER.match(text)
    named = _FRONT_TITLE.search(front["body"]) if front else None
    if named:
        return named["title"].strip().strip("\"'")
    headings = find_headings(text)
    return min(headings, key=lambda heading: (heading.level, heading.start)).title if headings else ""
