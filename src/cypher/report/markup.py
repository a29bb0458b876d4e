"""Text made safe for HTML."""

from __future__ import annotations

import html
import re

# What HTML cannot hold: control characters other than tab and newlines, and halves of surrogate pairs.
_NOT_HTML = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")


def escaped(text: str) -> str:
    """Text as HTML shows it literally, in content and in quoted attributes.

    A form feed, which parts the pages of a PDF, becomes a newline; other characters that HTML cannot hold
    become U+FFFD.

    Example:
        >>> escaped('<b title="x">')
        '&lt;b title=&quot;x&quot;&gt;'
    """
    return html.escape(_NOT_HTML.sub("\ufffd", text.replace("\f", "\n")), quote=True)
