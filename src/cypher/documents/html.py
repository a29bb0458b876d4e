"""HTML: the text a reader sees, without scripts, styles, menus and hidden parts."""

from __future__ import annotations

import codecs
import re
from typing import TYPE_CHECKING

from cypher.documents.document import Document, MetaValue
from cypher.documents.layout import TextLayout
from cypher.documents.source import missing_library
from cypher.documents.text import decode_text
from cypher.errors import DataError

if TYPE_CHECKING:
    from selectolax.lexbor import LexborNode

_DROPPED_TAGS = "head script style noscript template nav svg canvas iframe object audio video select textarea datalist"
_DROPPED = frozenset(_DROPPED_TAGS.split())
_BLOCK_TAGS = (
    "address article aside blockquote body center details dialog div dl fieldset figcaption figure footer"
    " form h1 h2 h3 h4 h5 h6 header hgroup hr legend main ol p pre search section summary ul"
)
_BLOCKS = frozenset(_BLOCK_TAGS.split())
_LINES = frozenset({"br", "caption", "dd", "dt", "tr"})
_HEADINGS = frozenset({"h1", "h2", "h3", "h4", "h5", "h6"})
_LISTS = frozenset({"ul", "ol"})
_ANCHORS = frozenset({"¶", "§", "#"})  # links that documentation tools put beside a heading
_CELLS = frozenset({"td", "th"})
_CHARSET = re.compile(rb"""<meta[^>]{0,200}?charset\s*=\s*["']?\s*([A-Za-z0-9_:.-]{2,40})""", re.IGNORECASE)
# Encodings found in web pages; anything else a page may name (idna, utf-7) is not text or not safe to try.
_WEB_ENCODINGS = re.compile(r"iso8859-|cp125|cp866|cp874|cp932|cp949|koi8|shift_jis|euc_|gb|big5|mac-|tis-620")
_HIDDEN_STYLE = re.compile(r"display\s*:\s*none|visibility\s*:\s*hidden", re.IGNORECASE)


def read_html(content: bytes, path: str) -> Document:
    r"""Visible text of a page, with Markdown's plain marks for headings, lists and tables.

    Entities are decoded and white space is collapsed as a browser does. The title is ``<title>``, else the
    first ``<h1>``.

    Args:
        content: Bytes of the file.
        path: Where it came from.

    Raises:
        DataError: Binary content, no visible text, or the parser is not installed.

    Example:
        >>> read_html(b"<title>T</title><h1>Fish &amp; chips</h1><p>Hot<br>today", "a.html").text
        '# Fish & chips\n\nHot\ntoday'
    """
    try:
        from selectolax.lexbor import LexborHTMLParser
    except ImportError as error:
        raise missing_library(path, "selectolax") from error
    source, encoding = decode_text(content, path, declared=_declared_encoding(content))
    tree = LexborHTMLParser(source)
    text = _visible_text(tree.root)
    if not text:
        raise DataError(f"{path} has no visible text", needed="a page with words in its body")
    meta: dict[str, MetaValue] = {"path": path, "format": "html", "encoding": encoding}
    for selector in ("head title", "h1"):
        node = tree.css_first(selector)
        title = " ".join(node.text().split()).strip("¶§ ") if node is not None else ""
        if title:
            meta["title"] = title
            break
    return Document(text=text, meta=meta)


def _declared_encoding(content: bytes) -> str | None:
    match = _CHARSET.search(content, 0, 4096)
    if not match:
        return None
    try:
        name = codecs.lookup(match[1].decode("ascii")).name
    except LookupError:
        return None
    if name == "iso8859-1":  # by the HTML standard the label latin-1 means cp1252
        return "cp1252"
    return name if _WEB_ENCODINGS.match(name) else None


def _visible_text(root: LexborNode | None) -> str:
    """Walks the tree without recursion: pages with thousands of nested elements exist."""
    page = _Page()
    node, depth, entering = root, 0, True
    while node is not None:
        tag = node.tag or ""
        if entering and tag == "-text":
            page.write(node.text_content or "")
        elif entering and not _is_dropped(node, tag):
            page.enter(node, tag)
            child = node.child
            if child is not None:
                node, depth = child, depth + 1
                continue
            page.leave(tag)
        elif not entering:
            page.leave(tag)
        if depth == 0:
            break
        following = node.next
        entering = following is not None
        if following is None:
            following, depth = node.parent, depth - 1
        node = following
    return page.layout.text()


def _is_dropped(node: LexborNode, tag: str) -> bool:
    if tag in _DROPPED or tag.startswith(("-", "!")):
        return True
    attributes = node.attributes
    return bool(attributes) and (
        attributes.get("hidden", "until-found") != "until-found"
        or attributes.get("aria-hidden") == "true"
        or attributes.get("role") == "navigation"
        or _HIDDEN_STYLE.search(attributes.get("style") or "") is not None
    )


def _is_data_table(table: LexborNode) -> bool:
    """Pages laid out with tables hold tables or headings in their cells; those cells are blocks, not rows."""
    part = table.child  # a selector would match the table itself
    while part is not None:
        if part.is_element_node and part.css_first("table, h1, h2, h3, h4, h5, h6") is not None:
            return False
        part = part.next
    return True


class _Page:
    """What is open at one place of the walk, and the text so far."""

    def __init__(self) -> None:
        self.layout = TextLayout()
        self._lists = 0
        self._data_tables: list[bool] = []
        self._preformatted: list[str] = []
        self._pre_depth = 0
        self._in_heading = False

    def write(self, text: str) -> None:
        if self._pre_depth:
            self._preformatted.append(text)
        elif not (self._in_heading and text.strip() in _ANCHORS):
            self.layout.write(text)

    def enter(self, node: LexborNode, tag: str) -> None:
        layout = self.layout
        if tag == "pre":
            self._pre_depth += 1
        elif self._pre_depth:
            self._preformatted.append("\n" if tag in _LINES else "")
        elif tag in _HEADINGS:
            layout.block(prefix="#" * int(tag[1]) + " ")
            layout.keep_on_line()
            self._in_heading = True
        elif tag == "table":
            self._data_tables.append(_is_data_table(node))
            layout.block()
        elif tag == "tr" and self._in_data_table():
            layout.start_row()
        elif tag in _CELLS and self._in_data_table():
            layout.start_cell()
        elif tag in _LISTS:
            self._lists += 1
            self._border(tag)
        elif tag == "li":
            layout.line(prefix="  " * max(0, self._lists - 1) + "- ")
        else:
            self._border(tag)

    def leave(self, tag: str) -> None:
        layout = self.layout
        if tag == "pre":
            self._pre_depth -= 1
            if not self._pre_depth:
                layout.block()
                layout.write_preformatted("".join(self._preformatted))
                layout.block()
                self._preformatted = []
        elif self._pre_depth:
            return
        elif tag in _HEADINGS:
            layout.end_line()
            self._in_heading = False
            layout.drop_prefix()
            layout.block()
        elif tag == "table":
            self._data_tables.pop()
            layout.block()
        elif tag == "tr" and self._in_data_table():
            layout.end_row()
        elif tag in _LISTS:
            self._border(tag)
            self._lists -= 1
        elif tag == "li":
            layout.drop_prefix()
            layout.line()
        elif not (tag in _CELLS and self._in_data_table()):
            self._border(tag)

    def _border(self, tag: str) -> None:
        nested_list = tag in _LISTS and self._lists > 1
        if nested_list or tag in _LINES or tag in _CELLS:
            self.layout.line()
        elif tag in _BLOCKS:
            self.layout.block()

    def _in_data_table(self) -> bool:
        return bool(self._data_tables) and self._data_tables[-1]
