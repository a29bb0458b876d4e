"""Text built block by block, as Markdown's plain marks, so that headings, lists and tables survive.

HTML and docx have structure that plain text loses. Their readers write it the way a person would in
Markdown: ``# `` before a heading, ``- `` before a list item, ``| a | b |`` for a table row, and preformatted
lines indented by four spaces. Whatever reads the text later finds the structure in one form.
"""

from __future__ import annotations

import re

_SPACE = re.compile(r"\s+")


class TextLayout:
    r"""Collects inline text and block borders, and joins them with exactly the newlines they ask for.

    Example:
        >>> layout = TextLayout()
        >>> layout.block(prefix="# "); layout.write("Title"); layout.block(); layout.write("Body  text")
        >>> layout.text()
        '# Title\n\nBody text'
    """

    def __init__(self) -> None:
        self._parts: list[str] = []
        self._newlines = 0
        self._space = False
        self._prefix = ""
        self._cell_open = False
        self._line_is_whole = 0  # how many open constructs need to stay on one line

    def write(self, text: str) -> None:
        """Inline text: runs of white space become one space."""
        if not text:
            return
        words = _SPACE.sub(" ", text)
        if words[0] == " ":
            self._space = True
            words = words[1:]
        if words:
            self._flush()
            self._parts.append(words.rstrip(" "))
            self._space = words[-1] == " "

    def write_preformatted(self, text: str) -> None:
        """Text whose line breaks count: every line indented by four spaces, as Markdown marks code."""
        if self._line_is_whole:
            self.write(text)
            return
        lines = text.expandtabs(4).splitlines()
        if any(line.strip() for line in lines):
            self._flush()
            self._parts.append("\n".join(f"    {line}" if line.strip() else "" for line in lines))

    def line(self, prefix: str = "") -> None:
        """The next text starts on a new line, after ``prefix``."""
        self._border(1, prefix)

    def block(self, prefix: str = "") -> None:
        """The next text starts after a blank line and ``prefix``."""
        self._border(2, prefix)

    def _border(self, newlines: int, prefix: str) -> None:
        if self._line_is_whole:
            self._space = True
            return
        # Right after a prefix nothing is written yet: "<li><p>" must not lose its dash to the paragraph.
        if not self._prefix and self._parts:
            self._newlines = max(self._newlines, newlines)
            self._space = False
        self._prefix = prefix or self._prefix

    def drop_prefix(self) -> None:
        """An element with a prefix ended; had it no text, the next one must not inherit the prefix."""
        self._prefix = ""

    def keep_on_line(self) -> None:
        """Until `end_line`, borders become spaces: a heading or a table row is one line."""
        self._line_is_whole += 1

    def end_line(self) -> None:
        """Ends the innermost `keep_on_line`."""
        self._line_is_whole -= 1

    def start_row(self) -> None:
        """A table row begins; its cells follow with `start_cell`."""
        self.line()
        self.keep_on_line()
        self._cell_open = False

    def start_cell(self) -> None:
        """A cell of the current row begins."""
        self._space = False
        self._flush()
        self._parts.append(" | " if self._cell_open else "| ")
        self._cell_open, self._space = True, False

    def end_row(self) -> None:
        """The row is closed when it had cells."""
        if self._cell_open:
            self._parts.append(" |")
        self._cell_open, self._space = False, False
        self.end_line()
        self.line()

    def text(self) -> str:
        """All that was written."""
        return "".join(self._parts)

    def _flush(self) -> None:
        if self._newlines:
            self._parts.append("\n" * self._newlines)
        elif self._space and self._parts and not self._parts[-1].endswith(" "):
            self._parts.append(" ")
        self._newlines, self._space = 0, False
        if self._prefix:
            self._parts.append(self._prefix)
            self._prefix = ""
