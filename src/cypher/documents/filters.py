"""Filters over documents' meta: a small expression language, parsed to a typed tree, never evaluated."""

from __future__ import annotations

import operator
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NoReturn, TypeAlias

from cypher.documents.document import MetaValue
from cypher.errors import ConfigError

Operator: TypeAlias = Literal["==", "!=", ">", ">=", "<", "<="]


class Filter(ABC):
    """A condition on a document's meta; its kinds are `Comparison`, `Membership`, `Not`, `And`, `Or`.

    A key that is missing and a key whose value is null are the same: nothing is known. Every comparison
    with it is false, ``!=`` and ``not in`` are true; ``key == null`` asks for it. Values of different kinds
    (text, number, true/false) are never equal and never in order, so they do not match; nothing fails.
    """

    @abstractmethod
    def matches(self, meta: Mapping[str, MetaValue]) -> bool:
        """Whether a document with this meta passes."""


@dataclass(frozen=True)
class Comparison(Filter):
    """``key operator value``: texts compare by code point, so ISO dates order as dates do.

    Example:
        >>> Comparison("year", ">=", 2019).matches({"year": 2021})
        True
    """

    key: str
    operator: Operator
    value: MetaValue

    def matches(self, meta: Mapping[str, MetaValue]) -> bool:
        """Whether the document's value stands so to this one."""
        found = meta.get(self.key)
        if self.operator == "==":
            return _equal(found, self.value)
        if self.operator == "!=":
            return not _equal(found, self.value)
        order = _ORDERS[self.operator]
        if isinstance(found, str) and isinstance(self.value, str):
            return order(found, self.value)
        if _is_number(found) and _is_number(self.value):
            return order(found, self.value)
        return False


@dataclass(frozen=True)
class Membership(Filter):
    """``key in [value, …]``: equal to one of the values.

    Example:
        >>> Membership("format", ("pdf", "docx")).matches({"format": "html"})
        False
    """

    key: str
    values: tuple[MetaValue, ...]

    def matches(self, meta: Mapping[str, MetaValue]) -> bool:
        """Whether one of the values is the document's."""
        found = meta.get(self.key)
        return any(_equal(found, value) for value in self.values)


@dataclass(frozen=True)
class Not(Filter):
    """``not part``: also true when ``part`` fails only because the key is missing."""

    part: Filter

    def matches(self, meta: Mapping[str, MetaValue]) -> bool:
        """Whether the part fails."""
        return not self.part.matches(meta)


@dataclass(frozen=True)
class And(Filter):
    """Every part matches."""

    parts: tuple[Filter, ...]

    def matches(self, meta: Mapping[str, MetaValue]) -> bool:
        """Whether no part fails."""
        return all(part.matches(meta) for part in self.parts)


@dataclass(frozen=True)
class Or(Filter):
    """At least one part matches."""

    parts: tuple[Filter, ...]

    def matches(self, meta: Mapping[str, MetaValue]) -> bool:
        """Whether some part matches."""
        return any(part.matches(meta) for part in self.parts)


def parse_filter(text: str) -> Filter:
    """A filter from its expression.

    ``key OP value`` with ``== != > >= < <=``, ``key in [value, …]``, ``key not in [value, …]``, joined by
    ``not``, ``and``, ``or`` (binding in that order) and parentheses. Values are ``"text"`` or ``'text'``
    (a backslash keeps the next character), numbers, ``true``, ``false``, ``null``.

    Args:
        text: The expression, as typed after ``--filter``.

    Raises:
        ConfigError: It does not parse; the line names the character, from 1, and what was expected there.

    Example:
        >>> condition = parse_filter('format == "pdf" and not (year < 2019 or title in ["a", "b"])')
        >>> condition.matches({"format": "pdf", "year": 2020, "title": "c"})
        True
    """
    return _Parser(text).parse()


_ORDERS: dict[str, Callable[[Any, Any], bool]] = {
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
}
_COMPARISONS: dict[str, Operator] = {"==": "==", "!=": "!=", ">": ">", ">=": ">=", "<": "<", "<=": "<="}
_CONSTANTS: dict[str, MetaValue] = {"true": True, "false": False, "null": None}
_WORDS = frozenset({"and", "or", "not", "in", *_CONSTANTS})
_MAX_DEPTH = 50
_TOKEN = re.compile(
    r"""\s*(?:
        (?P<text>"(?:[^"\\]|\\.)*" | '(?:[^'\\]|\\.)*')
      | (?P<number>[-+]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+)?(?![\w.]))
      | (?P<name>[^\W\d][\w.]*(?:-[\w.]+)*)
      | (?P<operator>==|!=|>=|<=|>|<)
      | (?P<mark>[()\[\],])
      | (?P<end>\Z)
      | (?P<other>\S)
    )""",
    re.VERBOSE | re.DOTALL,
)


def _is_number(value: MetaValue) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _equal(left: MetaValue, right: MetaValue) -> bool:
    if left is None or right is None:
        return left is right
    same_kind = isinstance(left, bool) == isinstance(right, bool)
    return same_kind and left == right


class _Parser:
    """Recursive descent over tokens; one method a rule of the grammar."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._depth = 0
        self._position = 0
        self._advance()

    def parse(self) -> Filter:
        condition = self._either()
        if self._kind != "end":
            self._refuse('"and", "or" or the end')
        return condition

    def _advance(self) -> None:
        match = _TOKEN.match(self._text, self._position)
        assert match is not None, "some branch takes every character"
        assert match.lastgroup is not None
        self._kind, self._token = match.lastgroup, match[match.lastgroup]
        self._start, self._position = match.start(match.lastgroup), match.end()
        if self._kind == "name" and self._token.lower() in _WORDS:
            self._kind, self._token = "word", self._token.lower()

    def _take(self, token: str) -> bool:
        if self._kind in {"word", "mark"} and self._token == token:
            self._advance()
            return True
        return False

    def _either(self) -> Filter:
        parts = [self._both()]
        while self._take("or"):
            parts.append(self._both())
        return parts[0] if len(parts) == 1 else Or(tuple(parts))

    def _both(self) -> Filter:
        parts = [self._single()]
        while self._take("and"):
            parts.append(self._single())
        return parts[0] if len(parts) == 1 else And(tuple(parts))

    def _single(self) -> Filter:
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            self._refuse(f"at most {_MAX_DEPTH} nested parentheses and nots")
        condition: Filter
        if self._take("not"):
            condition = Not(self._single())
        elif self._take("("):
            condition = self._either()
            if not self._take(")"):
                self._refuse('"and", "or" or ")"')
        else:
            condition = self._comparison()
        self._depth -= 1
        return condition

    def _comparison(self) -> Filter:
        if self._kind != "name":
            self._refuse('a key of the documents, such as format, "not" or "("')
        key = self._token
        self._advance()
        if self._take("in"):
            return Membership(key, self._list())
        if self._take("not"):
            if not self._take("in"):
                self._refuse('"in"')
            return Not(Membership(key, self._list()))
        if self._kind != "operator":
            self._refuse('one of == != > >= < <= in "not in"')
        comparison = _COMPARISONS[self._token]
        self._advance()
        return Comparison(key, comparison, self._value())

    def _list(self) -> tuple[MetaValue, ...]:
        if not self._take("["):
            self._refuse('a list, such as ["a", "b"]')
        if self._take("]"):
            return ()
        values = [self._value()]
        while self._take(","):
            values.append(self._value())
        if not self._take("]"):
            self._refuse('"," or "]"')
        return tuple(values)

    def _value(self) -> MetaValue:
        value: MetaValue
        if self._kind == "text":
            value = re.sub(r"\\(.)", r"\1", self._token[1:-1], flags=re.DOTALL)
        elif self._kind == "number":
            is_whole = self._token.lstrip("+-").isdigit() and len(self._token) < 1000
            value = int(self._token) if is_whole else float(self._token)
        elif self._kind == "word" and self._token in _CONSTANTS:
            value = _CONSTANTS[self._token]
        else:
            self._refuse('a value: "text" in quotes, a number, true, false or null')
        self._advance()
        return value

    def _refuse(self, expected: str) -> NoReturn:
        if self._kind == "end":
            found = "the end"
        elif self._token in {'"', "'"}:
            found = f"{self._token} without its partner"
        else:
            found = self._token if len(self._token) <= 40 else f"{self._token[:40]}…"
        shown = self._text if len(self._text) <= 200 else f"{self._text[:200]}…"
        raise ConfigError(f"filter {shown} has {found} at character {self._start + 1}", needed=expected)
