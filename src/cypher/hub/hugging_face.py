"""Model files from the Hugging Face hub, through its own client: resumable, and only formats without code."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cypher.errors import ModelError
from cypher.hub.cache import is_offline
from cypher.hub.catalogue import CheckedFile, HubSource
from cypher.hub.integrity import is_good
from cypher.hub.wheel import Progress

PATTERNS = ("*.safetensors", "*.json", "*.txt", "*.gguf")
"""What is fetched of a repository: weights without code, configuration, vocabulary."""

_ANSWER_SECONDS = 10


def fetch_hub(
    source: HubSource, files: Sequence[CheckedFile], folder: Path, *, progress: Progress | None = None
) -> None:
    """Download ``files`` of a repository at its pinned commit into ``folder``; a broken transfer goes on.

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
    repository: str, *, revision: str | None = None, offline: bool = False, progress: Progress | None = None
) -> Path:
    """The folder of any hub repository, in the hub client's own cache (``HF_HOME``), fetched if absent.

    A copy already in the cache is used without asking the network, so a name without a revision stays at the
    commit of its first fetch.

    Raises:
        ModelError: It cannot be had, or holds no safetensors or GGUF weights.
    """
    cached = _cached(repository, revision)
    if cached is not None:
        return cached
    if offline:
        raise ModelError(
            f"{repository} is not in the cache and the network is off",
            change=f"run `cypher models fetch {repository}` once with the network on",
        )
    folder = _snapshot(repository, revision=revision, patterns=list(PATTERNS), progress=progress)
    if not _has_weights(folder):
        raise ModelError(
            f"{repository} has no safetensors or GGUF weights",
            needed="weights in a format that cannot run code",
            change="convert them to safetensors and give the folder",
        )
    return folder


def resolve_adapter(name: str, *, offline: bool | None = None) -> Path:
    """The folder of an adapter: one that exists, or a repository ``owner/name``, fetched if it is not in the cache.

    Args:
        name: A path, or a repository with ``@revision`` behind it if another than the newest is meant.
        offline: Whether the network may be used; ``None`` asks the environment.

    Raises:
        ModelError: There is neither, or the repository holds pickles alone.
    """
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder
    repository, _, revision = name.partition("@")
    if repository.count("/") != 1 or name.startswith(("/", ".", "~")):
        raise ModelError(f"there is no folder {name}", needed="the folder of an adapter, or owner/name on the hub")
    return fetch_repository(repository, revision=revision or None, offline=is_offline(offline))


def _cached(repository: str, revision: str | None) -> Path | None:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        found = snapshot_download(repository, revision=revision, allow_patterns=list(PATTERNS), local_files_only=True)
    except LocalEntryNotFoundError:
        return None
    except HFValidationError as error:
        raise ModelError(f"{repository!r} is not a hub name ({error})") from error
    return Path(found) if _has_weights(Path(found)) else None


def _has_weights(folder: Path) -> bool:
    return any(path.suffix in {".safetensors", ".gguf"} for path in folder.rglob("*"))


def _snapshot(
    repository: str,
    *,
    revision: str | None,
    patterns: list[str],
    progress: Progress | None,
    local_dir: Path | None = None,
) -> Path:
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError
    from huggingface_hub.errors import HTTPError as TransportError  # type: ignore[attr-defined]

    try:
        # The client asks six times for the files of a known commit; this asks once, so that a closed network
        # is known in seconds.
        HfApi().model_info(repository, revision=revision, timeout=_ANSWER_SECONDS)
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


def _reporting(repository: str, progress: Progress | None) -> type[Any]:
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
