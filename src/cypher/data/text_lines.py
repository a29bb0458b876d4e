"""Text files line by line, plain or gzipped, each line with its number; UTF-8 and nothing else."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, cast

from cypher.data.table_row import BadRows
from cypher.errors import DataError

_GZIP = b"\x1f\x8b"
_BOM = b"\xef\xbb\xbf"


@contextmanager
def opened(path: Path) -> Iterator[IO[bytes]]:
    """A file's content, unpacked where it is gzipped, whatever it is called.

    Raises:
        DataError: It cannot be read.
    """
    try:
        with path.open("rb") as file:
            is_packed = file.peek(2)[:2] == _GZIP
            yield cast(IO[bytes], gzip.GzipFile(fileobj=file)) if is_packed else file
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror or error})") from error


class TextLines:
    """The lines of a file as text, with their ends as they are.

    Args:
        file: Bytes.
        name: Of the file, for errors.
        bad: What is done with a line that is not UTF-8.
    """

    def __init__(self, file: IO[bytes], *, name: str, bad: BadRows) -> None:
        self._file, self._name, self._bad = file, name, bad
        self.number = 0
        """Of the last line that was given, from 1."""
        self.first: int | None = None
        """Of the first line since this was last set to ``None``."""

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        while True:
            line = self._raw()
            if not line:
                raise StopIteration
            self.number += 1
            if self.first is None:
                self.first = self.number
            if self.number == 1:
                line = line.removeprefix(_BOM)
            try:
                return line.decode("utf-8")
            except UnicodeDecodeError as error:
                self._bad.report(
                    DataError(
                        f"{self._name}, line {self.number} is not UTF-8 ({error.reason} at byte {error.start + 1})",
                        change="save the file as UTF-8",
                    )
                )
                self.first = None

    def _raw(self) -> bytes:
        try:
            return self._file.readline()
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise DataError(
                f"{self._name} is a broken gzip file behind line {self.number} ({error})", change="get it again"
            ) from error

    @property
    def place(self) -> str:
        """File and line of what began at ``first``."""
        return f"{self._name}, line {self.first or self.number}"
