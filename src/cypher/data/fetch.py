"""A data set's name to its files: the folder named by ``CYPHER_DATA``, the cache, the source repository."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import zlib
from pathlib import Path

from cypher.data.catalogue import DataEntry, DataFile, data_sets, find
from cypher.errors import DataError
from cypher.files import write_bytes
from cypher.hub.cache import cache_folder, is_offline, one_writer, writing
from cypher.hub.download import FetchProgress, download


def locate(
    name: str | os.PathLike[str],
    *,
    training: bool = False,
    offline: bool | None = None,
    progress: FetchProgress | None = None,
) -> Path:
    """The files of a data set, downloaded from its source repository if they are nowhere on this machine.

    A name of the catalogue is looked for in the folder named by ``CYPHER_DATA``, in the cache, and in the source
    repository at the catalogue's commit; anything else is the path of a file or folder. Each catalogued file is
    checked by sha256, plain or gzipped.

    Args:
        name: A name of the catalogue, or the path of a file in the same format.
        training: Whether it will be trained on; sets kept for evaluation are then refused, by name and by content.
        offline: ``True`` never touches the network; ``None`` asks ``CYPHER_OFFLINE`` and ``HF_HUB_OFFLINE``.
        progress: Told what is being fetched, bytes so far and bytes in all.

    Returns:
        The file, possibly ``.gz``; for a set of several files, their folder.

    Raises:
        DataError: Unknown name, evaluation only, a file with another checksum, or no way to download.

    Example:
        >>> locate("squadshifts/new_wiki").name  # doctest: +SKIP
        'new_wiki_v1.0.json.gz'
    """
    given = os.fspath(name)
    path = Path(given).expanduser()
    if given not in data_sets() and path.exists():
        if training and path.is_file() and (kept := _kept_for_evaluation(path)):
            raise _not_to_be_trained_on(f"{given} is {kept.name}, which")
        return path.absolute()
    return locate_entry(find(given), training=training, offline=offline, progress=progress)


def locate_entry(
    entry: DataEntry,
    *,
    training: bool = False,
    offline: bool | None = None,
    progress: FetchProgress | None = None,
) -> Path:
    """As :func:`locate`, for a row of the catalogue.

    Args:
        entry: Of the catalogue, or made by hand in the same form.
        training: As in :func:`locate`; so are ``offline`` and ``progress``.
        offline: Whether the network may be used.
        progress: Told the bytes.

    Raises:
        DataError: As :func:`locate`.
    """
    if training and not entry.trainable:
        raise _not_to_be_trained_on(entry.name)
    found = present(entry)
    if found is not None:
        return found
    if is_offline(offline):
        raise DataError(
            f"{entry.name} is neither under CYPHER_DATA nor in the cache, and the network is off",
            change=f"run `cypher data fetch {entry.name}` once with the network on, "
            f"or name a folder that has {entry.files[0].path} by CYPHER_DATA",
        )
    folder = _cached()
    lock = folder / entry.name.replace("/", "-")
    with writing(folder, kind=DataError), one_writer(lock):
        for file in entry.files:
            if _find(folder, file) is None:
                _fetch(entry, file, folder, progress)
    found = present(entry)
    assert found is not None, "every file was just written"
    return found


def present(entry: DataEntry) -> Path | None:
    """Where the set already is, or ``None``; no network.

    Raises:
        DataError: A file cannot be read, or one under ``CYPHER_DATA`` has another checksum: someone else's copy is not
            overwritten.
    """
    named = os.environ.get("CYPHER_DATA")
    for folder in (*((Path(named).expanduser(),) if named else ()), _cached()):
        found = [_find(folder, file) for file in entry.files]
        places = [place for place in found if place is not None]
        if len(places) == len(entry.files):
            return places[0].absolute() if len(places) == 1 else places[0].parent.absolute()
    return None


def _not_to_be_trained_on(given: str) -> DataError:
    return DataError(
        f"{given} is kept for evaluation",
        needed="data that may be trained on",
        change="choose one that `cypher data list` marks as trainable",
    )


def _kept_for_evaluation(path: Path) -> DataEntry | None:
    """The set that a file is a copy of, or that was taken from it, if it may not be trained on."""
    content = _content(path)
    size, sha256 = len(content), hashlib.sha256(content).hexdigest()
    for entry in data_sets().values():
        for file in entry.files:
            sums = ((file.size, file.sha256), (file.source_size, file.source_sha256))
            if not entry.trainable and (size, sha256) in sums:
                return entry
    return None


def _cached() -> Path:
    return cache_folder() / "data"


def _find(folder: Path, file: DataFile) -> Path | None:
    """The file in ``folder``, plain or gzipped, when its content is right."""
    for path in (folder / file.path, folder / f"{file.path}.gz"):
        try:
            if not path.is_file():
                continue
            content = _content(path)
        except OSError as error:
            raise DataError(
                f"{path} cannot be read ({error.strerror or error})", change="mend its permissions, or remove it"
            ) from error
        if _matches(content, file.size, file.sha256):
            return path
        if folder != _cached():
            raise DataError(
                f"{path} has sha256 {hashlib.sha256(content).hexdigest()[:12]}…",
                needed=f"{file.sha256[:12]}… ({file.size} bytes uncompressed)",
                change="put the original there, or remove it so that it is fetched",
            )
    return None


def _content(path: Path) -> bytes:
    """The file's bytes, uncompressed; nothing when the gzip is broken, which no checksum matches."""
    content = path.read_bytes()
    if not content.startswith(b"\x1f\x8b"):
        return content
    try:
        return gzip.decompress(content)
    except (OSError, EOFError, zlib.error):
        return b""


def _matches(content: bytes, size: int, sha256: str) -> bool:
    return len(content) == size and hashlib.sha256(content).hexdigest() == sha256


def _fetch(entry: DataEntry, file: DataFile, folder: Path, progress: FetchProgress | None) -> None:
    """Bring one file into ``folder``, or go on where an interrupted call was."""
    url = entry.url_of(file)
    size, sha256 = file.source_size or file.size, file.source_sha256 or file.sha256
    partial = folder / ".partial" / sha256
    partial.parent.mkdir(parents=True, exist_ok=True)
    try:
        download(url, partial, size=size, what=f"{entry.name} ({Path(file.path).name})", progress=progress)
    except DataError as error:
        change = f"{error.change}, or name a folder that has {entry.files[0].path} by CYPHER_DATA"
        raise DataError(error.given, needed=error.needed, change=change) from error
    content = partial.read_bytes()
    if not _matches(content, size, sha256):
        partial.unlink()
        raise DataError(
            f"{url} gave {len(content)} bytes of sha256 {hashlib.sha256(content).hexdigest()[:12]}…",
            needed=f"{size} bytes of {sha256[:12]}…",
            change="try again; a proxy may have answered in its place",
        )
    if file.articles:
        content = _take_articles(content, file.articles)
        assert _matches(content, file.size, file.sha256), "the articles follow from the checked source"
    write_bytes(folder / file.path, content)
    partial.unlink()


def _take_articles(content: bytes, titles: tuple[str, ...]) -> bytes:
    source = json.loads(content)
    kept = [article for article in source["data"] if article["title"] in titles]
    return json.dumps({"version": source["version"], "data": kept}).encode()
