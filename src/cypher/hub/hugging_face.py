"""Model files from the Hugging Face hub, through its own client: resumable, and only formats without code."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

from cypher.errors import ModelError
from cypher.hub.cache import is_offline, writing
from cypher.hub.catalogue import CheckedFile, HubSource
from cypher.hub.download import FetchProgress
from cypher.hub.integrity import is_good

PATTERNS = ("*.json", "*.txt")
"""What is fetched of a repository beside weights in a format without code: configuration, vocabulary."""

FORMATS = ("safetensors", "gguf")
"""Of weights that hold no code."""

# Configuration of an adapter or a fusion → its weights.
_ADAPTER_FILES = {
    "adapter_config.json": "adapter.safetensors",
    "adapter_fusion_config.json": "model_adapter_fusion.safetensors",
}
_ANSWER_SECONDS = 10


def fetch_hub(
    source: HubSource, files: Sequence[CheckedFile], folder: Path, *, progress: FetchProgress | None = None
) -> None:
    """Download ``files`` of a repository at its pinned commit into ``folder``; a broken transfer goes on.

    Args:
        source: Repository and commit.
        files: Wanted of it, with what they must be.
        folder: Gets them.
        progress: Told the bytes.

    Raises:
        ModelError: The hub does not answer, refuses, or a file is not the expected one.
    """
    _snapshot(
        source.repository,
        revision=source.revision,
        patterns=[file.path for file in files],
        progress=progress,
        local_dir=folder,
    )
    for file in files:
        path = folder / file.path
        if not is_good(path, file):
            path.unlink(missing_ok=True)
            raise ModelError(
                f"{source.repository}: {file.path} is missing or differs",
                needed=f"sha256 {file.sha256[:12]}…",
            )


def fetch_repository(
    repository: str,
    *,
    revision: str | None = None,
    formats: Collection[str] = FORMATS,
    is_complete: Callable[[Path], bool] | None = None,
    offline: bool = False,
    progress: FetchProgress | None = None,
) -> Path:
    """The folder of any hub repository, in the hub client's own cache (``HF_HOME``), fetched if absent.

    A whole copy already in the cache is used without asking the network, so a name without a revision stays at the
    commit of its first fetch. A copy that an interrupted fetch has left is completed.

    Args:
        repository: ``owner/name``.
        revision: Branch, tag or commit; ``None`` is the newest commit.
        formats: Of weights, ``"safetensors"`` and ``"gguf"``, that whoever asks can read.
        is_complete: Whether a cached copy has all that is needed; ``None`` asks for a model's files (:func:`is_whole`).
        offline: Whether the network is off.
        progress: Told the bytes.

    Raises:
        ModelError: It cannot be had, or holds no weights of these formats, which is known before they are fetched.
    """
    patterns = [*PATTERNS, *(f"*.{name}" for name in formats)]
    cached = _cached(repository, revision, patterns)
    if cached is not None:
        complete = is_whole(cached, formats) if is_complete is None else is_complete(cached)
        if complete or (offline and _weights_are_whole(cached, formats)):
            return cached
    if offline:
        part = "only in part" if cached is not None else "not"
        raise ModelError(
            f"{repository} is {part} in the cache and the network is off",
            change=f"run `cypher models fetch {repository}` once with the network on",
        )
    return _snapshot(repository, revision=revision, patterns=patterns, formats=formats, progress=progress)


def resolve_adapter(name: str, *, offline: bool | None = None) -> Path:
    """The folder of an adapter: one that exists, or a repository ``owner/name``, fetched if it is not in the cache.

    Args:
        name: A path, or a repository with ``@revision`` behind it if another than the newest is meant.
        offline: Whether the network may be used; ``None`` asks the environment.

    Raises:
        ModelError: There is neither, the repository holds pickles alone, or the disk is full.
    """
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder
    repository, _, revision = name.partition("@")
    if repository.count("/") != 1 or name.startswith(("/", ".", "~")):
        raise ModelError(f"there is no folder {name}", needed="the folder of an adapter, or owner/name on the hub")
    with writing(Path.home()):
        return fetch_repository(
            repository,
            revision=revision or None,
            formats=("safetensors",),
            is_complete=is_whole_adapter,
            offline=is_offline(offline),
        )


def is_whole(folder: Path, formats: Collection[str] = FORMATS) -> bool:
    """Whether a snapshot has what a model needs: an interrupted fetch leaves a part of it.

    Args:
        folder: Of the snapshot.
        formats: Of weights that count.
    """
    if not _weights_are_whole(folder, formats):
        return False
    return any(folder.rglob("*.gguf")) or (
        (folder / "config.json").is_file()
        and any(path.name.startswith(("tokenizer", "vocab")) for path in folder.iterdir())
    )


def is_whole_adapter(folder: Path) -> bool:
    """Whether a snapshot has an adapter, or a set-up of several: weights beside every configuration.

    Args:
        folder: Of the snapshot.
    """
    beside = [path.parent / weights for name, weights in _ADAPTER_FILES.items() for path in folder.rglob(name)]
    return bool(beside) and all(path.is_file() for path in beside)


def _weights_are_whole(folder: Path, formats: Collection[str]) -> bool:
    for index in folder.glob("*.safetensors.index.json"):
        try:
            shards = set(json.loads(index.read_text("utf-8"))["weight_map"].values())
        except (ValueError, KeyError, TypeError, AttributeError):
            return False
        if not all((folder / shard).is_file() for shard in shards):
            return False
    return any(path.suffix.removeprefix(".") in formats for path in folder.rglob("*"))


def _cached(repository: str, revision: str | None, patterns: list[str]) -> Path | None:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(repository, revision=revision, allow_patterns=patterns, local_files_only=True))
    except LocalEntryNotFoundError:
        return None
    except HFValidationError as error:
        raise ModelError(f"{repository!r} is not a hub name ({error})") from error


def _snapshot(
    repository: str,
    *,
    revision: str | None,
    patterns: list[str],
    progress: FetchProgress | None,
    formats: Collection[str] = (),
    local_dir: Path | None = None,
) -> Path:
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError
    from huggingface_hub.errors import HTTPError as TransportError  # type: ignore[attr-defined]

    try:
        # The client asks six times for the files of a known commit; this asks once, so that a closed network
        # is known in seconds.
        about = HfApi().model_info(repository, revision=revision, timeout=_ANSWER_SECONDS)
        names = [sibling.rfilename for sibling in about.siblings or ()]
        if formats and not any(name.rpartition(".")[2] in formats for name in names):
            raise _unreadable(repository, names, formats)
        return Path(
            snapshot_download(
                repository,
                revision=revision,
                allow_patterns=patterns,
                local_dir=local_dir,
                etag_timeout=_ANSWER_SECONDS,
                tqdm_class=_reporting(repository, progress),
            )
        )
    except HfHubHTTPError as error:
        reason = str(error).strip().splitlines()[0]
        raise ModelError(
            f"the hub refused {repository} ({reason})",
            change="check the name; for a private or gated model run `hf auth login`",
        ) from error
    except (TransportError, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # the disk, not the network
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ModelError(f"the hub could not be reached for {repository} ({reason})") from error


def _unreadable(repository: str, names: Sequence[str], formats: Collection[str]) -> ModelError:
    others = [name for name in FORMATS if name not in formats and any(file.endswith(f".{name}") for file in names)]
    return ModelError(
        f"{repository} has no {' or '.join(formats)} weights" + "".join(f", only {name}" for name in others),
        needed="weights in a format that cannot run code and is read here",
        change="convert them to safetensors and give the folder",
    )


def _reporting(repository: str, progress: FetchProgress | None) -> type[Any]:
    """A progress bar for the hub client that draws nothing and reports bytes to ``progress``."""
    from huggingface_hub.utils.tqdm import tqdm

    class Reporting(tqdm):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            self.reports = progress is not None and options.get("unit") == "B"
            self.done = int(options.get("initial") or 0)
            options["disable"] = True
            options.pop("name", None)
            super().__init__(*arguments, **options)  # type: ignore[no-untyped-call]

        def update(self, n: float | None = 1) -> bool | None:
            self.done += int(n or 0)
            if self.reports and progress is not None:
                progress(repository, self.done, int(self.total or 0))
            return None

    return Reporting
