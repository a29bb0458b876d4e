"""Lines of JSON, plain or gzipped, whose every error names the file and the line."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from cypher.errors import DataError

Value = TypeVar("Value")
_GZIP = b"\x1f\x8b"
_NAMES = {str: "text", int: "a whole number", bool: "true or false", list: "a list", dict: "an object"}


@dataclass(frozen=True, kw_only=True)
class Fields:
    """A JSON object and where it stands.

    Args:
        values: Its keys and values.
        place: File and line, and the path inside the line, for errors.
    """

    values: dict[str, Any]
    place: str

    def get(self, key: str, kind: type[Value]) -> Value:
        """The value of ``key``.

        Raises:
            DataError: It is missing or of another type.
        """
        if key not in self.values:
            raise DataError(f"{self.place}: {key} is missing", needed=f"{key}, {_NAMES[kind]}")
        value = self.values[key]
        # A bool is an int to isinstance.
        if type(value) is not kind:
            raise DataError(f"{self.place}: {key} = {json.dumps(value)[:80]}", needed=_NAMES[kind])
        return value

    def text(self, key: str) -> str:
        """A text that is not blank."""
        value = self.get(key, str)
        if not value.strip():
            raise DataError(f"{self.place}: {key} is blank", needed="text")
        return value

    def inner(self, key: str) -> Fields:
        """An object inside this one."""
        return Fields(values=self.get(key, dict), place=f"{self.place}, {key}")

    def each(self, key: str) -> list[Fields]:
        """The objects of a list inside this one."""
        found = []
        for number, value in enumerate(self.get(key, list)):
            place = f"{self.place}, {key}[{number}]"
            if not isinstance(value, dict):
                raise DataError(f"{place} = {json.dumps(value)[:80]}", needed="an object")
            found.append(Fields(values=value, place=place))
        return found

    def label(self, known: tuple[Any, ...]) -> Any:
        """The value of ``label``, one of ``known``; ``None`` where a test file has none."""
        if self.values.get("label") is None:
            return None
        value = self.values["label"]
        # 0 and False are equal, and so are 1 and True, but no file means the other.
        if not any(type(value) is type(other) and value == other for other in known):
            shown = ", ".join(json.dumps(other) for other in known)
            raise DataError(f"{self.place}: label = {json.dumps(value)[:80]}", needed=f"one of {shown}")
        return value


def read_jsonl(path: Path) -> Iterator[Fields]:
    """The objects of a file, a line each; blank lines are passed over.

    Raises:
        DataError: The file cannot be read, or a line is no JSON object.
    """
    try:
        content = path.read_bytes()
        if content.startswith(_GZIP):
            content = gzip.decompress(content)
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 ({error.reason} at byte {error.start})") from None
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{path} is a broken gzip file ({error})", change="fetch it again") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror or error})") from None
    # Not splitlines(): a text may hold separators that JSON does not escape.
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        place = f"{path}, line {number}"
        try:
            values = json.loads(line)
        except ValueError as error:
            raise DataError(f"{place} is not JSON ({error})", needed="one object a line") from None
        if not isinstance(values, dict):
            raise DataError(f"{place} is a {type(values).__name__}", needed="a JSON object")
        yield Fields(values=values, place=place)
