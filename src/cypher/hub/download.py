"""One file over https, resumed where an earlier call was cut off; and how whoever waits is told."""

from __future__ import annotations

import http.client
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

from cypher.errors import DataError

FetchProgress: TypeAlias = Callable[[str, int, int], None]
"""Called with what is being fetched, bytes so far, and bytes in all (0 when not known)."""

_CHUNK = 1 << 18
_ANSWER_SECONDS = 20


def download(url: str, path: Path, *, size: int, what: str, progress: FetchProgress | None = None) -> None:
    """Bring a file of known size; what an interrupted call has brought is kept and gone on from.

    Args:
        url: Beginning with ``https://``.
        path: Where the bytes go while they come; its folder exists.
        size: Bytes of the whole file.
        what: Its name for ``progress`` and for messages.
        progress: Told the bytes.

    Raises:
        DataError: No answer, an answer of another size, or one that was cut off; then ``path`` keeps what came.
        OSError: ``path`` cannot be written.
    """
    assert url.startswith("https://"), "catalogues allow https only"
    done = path.stat().st_size if path.exists() else 0
    if done >= size:
        return  # whoever asked compares the sum
    request = urllib.request.Request(url, headers={"Range": f"bytes={done}-"} if done else {})  # noqa: S310 - https
    try:
        answer = urllib.request.urlopen(request, timeout=_ANSWER_SECONDS)  # noqa: S310 - https
    except (OSError, http.client.HTTPException) as error:
        raise _not_had(what, url, error) from error
    with answer:
        if answer.status != http.HTTPStatus.PARTIAL_CONTENT:
            done = 0  # the source begins anew
        promised = answer.headers.get("Content-Length")
        is_right = promised is None or done + int(promised) == size
        with path.open("ab" if done else "wb") as file:
            while done <= size:
                try:
                    chunk = answer.read(_CHUNK)
                except (OSError, http.client.HTTPException) as error:
                    raise _not_had(what, url, error) from error
                if not chunk:
                    break
                file.write(chunk)
                done += len(chunk)
                if progress is not None:
                    progress(what, done, size)
    if done < size and is_right:
        raise DataError(f"{what}: {url} ended after {done} of {size} bytes", change="run it again, it goes on there")


def _not_had(what: str, url: str, error: Exception) -> DataError:
    reason = error.reason if isinstance(error, urllib.error.URLError) else error
    return DataError(f"{what} could not be downloaded from {url} ({reason})", change="check the network")
