"""Every error a person can cause: one line that says what was given, what is needed, what to change.

A programmer's mistake is an ``assert``; a person's is one of these. The command line prints the line and
ends with ``exit_code``; nothing in the library prints or exits.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class CypherError(Exception):
    """Root of all errors meant for a person's eyes.

    Args:
        given: What was found, with its place (path, key, number).
        needed: What would have been right, with the numbers.
        change: What to do about it, with the flag or the command as it is typed.

    Example:
        >>> str(CypherError("batch_tokens = 0", needed="at least 1 token", change="set train.batch_tokens"))
        'batch_tokens = 0: needs at least 1 token; set train.batch_tokens'
    """

    exit_code = 1

    def __init__(self, given: str, *, needed: str | None = None, change: str | None = None) -> None:
        self.given, self.needed, self.change = given, needed, change
        line = given if needed is None else f"{given}: needs {needed}"
        super().__init__(" ".join((line if change is None else f"{line}; {change}").split()))


class ConfigError(CypherError):
    """A recipe, a flag or a combination of them cannot work."""

    exit_code = 2


class DataError(CypherError):
    """A file, a folder or a row is missing, broken or of another format."""

    exit_code = 2


class ModelError(CypherError):
    """Weights, a tokenizer or an adapter cannot be found, fetched or fitted."""


class StoreError(CypherError):
    """A document store is broken or busy."""


class WrongStoreError(StoreError):
    """The call and the store do not go together: there is none there, or it was made with other settings."""

    exit_code = 2


def nearest(given: str, known: Iterable[str]) -> str:
    """What to write instead of an unknown name: the one that looks most like it, or else all of them.

    Args:
        given: The unknown name.
        known: Those there are.

    Example:
        >>> nearest("lorra", ["lora", "dora"]), nearest("x", ["lora", "dora"])
        ('did you mean lora?', 'there are lora, dora')
    """
    names = list(known)
    near = difflib.get_close_matches(given, names, n=1)
    return f"did you mean {near[0]}?" if near else f"there are {', '.join(names)}"


def first_line(error: BaseException) -> str:
    r"""What an error says, without the lines of detail that some libraries add; its kind when it says nothing.

    Example:
        >>> first_line(KeyError("width")), first_line(ValueError("two\nlines")), first_line(OSError())
        ("no 'width'", 'two', 'OSError')
    """
    line = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return f"no {line}" if isinstance(error, KeyError) else line
