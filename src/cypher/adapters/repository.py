"""Adapters pushed to the Hugging Face hub in AdapterHub's format, with a model card.

:func:`cypher.hub.hugging_face.resolve_adapter` fetches them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cypher.adapters.folder_contents import ADAPTER_HUB, SET_UP, FolderContents, describe
from cypher.errors import ConfigError, ModelError, first_line
from cypher.hub import is_offline

if TYPE_CHECKING:
    from huggingface_hub import CommitOperationAdd

CARD = "README.md"
# The hub lists adapters by it, and keeps the library's first name for that.
LIBRARY_TAG = "adapter-transformers"


def adapter_card(
    folder: Path,
    repository: str,
    *,
    licence: str | None = None,
    languages: Sequence[str] = (),
    datasets: Sequence[str] = (),
    description: str | None = None,
) -> str:
    """The model card of an adapter in AdapterHub's format.

    Args:
        folder: Of the adapter, or of a set-up of several.
        repository: ``owner/name`` it will be under.
        licence: SPDX identifier.
        languages: Codes, such as ``en``.
        datasets: Names on the hub.
        description: What it was trained for, in Markdown.

    Returns:
        Markdown with its table of facts in front.
    """
    contents = _pushable(folder)
    parts = contents.parts or (contents,)
    base, kind = parts[0].model_name, parts[0].model_type
    facts = ["tags:", f"- {LIBRARY_TAG}", *([f"- {kind}"] if kind else [])]
    facts += [f"base_model: {base}"] if base.count("/") <= 1 and base and not Path(base).exists() else []
    for key, values in (("language", languages), ("datasets", datasets)):
        facts += [f"{key}:", *(f"- {value}" for value in values)] if values else []
    facts += [f"license: {licence}"] if licence else []
    described = [
        f"- `{part.name}`: {part.method}" + (f", {part.n_parameters:,} parameters" if part.n_parameters else "")
        for part in parts
        if part.method
    ]
    is_setup = contents.format == SET_UP
    there = "load_adapter_setup" if is_setup else "load_adapter"
    here = "load_hub_setup" if is_setup else "load_hub_adapter"
    module = "hub_setup" if is_setup else "hub_folder"
    return "\n".join(
        [
            "---", *facts, "---", "",
            f"# {repository.rpartition('/')[2]}", "",
            description or f"An adapter for `{base or kind}`.", "",
            *described, "",
            f"Composition: {contents.composition}\n" if is_setup else f"Head: {contents.head or 'none'}.", "",
            "## Use", "",
            "With [adapters](https://github.com/adapter-hub/adapters):", "",
            "```python", "from adapters import AutoAdapterModel", "",
            f'model = AutoAdapterModel.from_pretrained("{base}")',
            f'model.{there}("{repository}", set_active=True, use_safetensors=True)', "```", "",
            "With Cypher:", "",
            "```python", f"from cypher.adapters.{module} import {here}",
            "from cypher.hub.hugging_face import resolve_adapter",
            "from cypher.models.load import load_model", "",
            f'model = load_model("{base}").model',
            f'{here}(resolve_adapter("{repository}"), model)', "```", "",
        ]
    )  # fmt: skip


def upload_operations(folder: Path, card: str) -> list[CommitOperationAdd]:
    """What one commit adds to a repository: configurations, safetensors and the card; nothing else of the folder."""
    from huggingface_hub import CommitOperationAdd

    _pushable(folder)
    files = sorted(path for path in folder.rglob("*") if path.suffix in (".json", ".safetensors") and path.is_file())
    return [
        CommitOperationAdd(path_in_repo=CARD, path_or_fileobj=card.encode()),
        *(CommitOperationAdd(path_in_repo=path.relative_to(folder).as_posix(), path_or_fileobj=path) for path in files),
    ]


def push_adapter(
    folder: Path, repository: str, *, card: str | None = None, private: bool = False, message: str = "Add an adapter"
) -> str:
    """Put an adapter on the hub, in a repository that is made if it is absent.

    Args:
        folder: In AdapterHub's format; :func:`cypher.adapters.hub_folder.save_hub_adapter` writes it.
        repository: ``owner/name``; whoever is logged in (``hf auth login``) must be allowed to write there.
        card: Its model card; ``None`` takes :func:`adapter_card`'s.
        private: Whether a new repository is hidden from others.
        message: Of the commit.

    Returns:
        Address of the commit.

    Raises:
        ConfigError: The network is off, or the folder is of another format.
        ModelError: The hub refuses, or cannot be reached.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError
    from huggingface_hub.errors import HTTPError as TransportError  # type: ignore[attr-defined]

    operations = upload_operations(folder, card or adapter_card(folder, repository))
    if is_offline():
        raise ConfigError(f"{repository} cannot be pushed with the network off", change="unset CYPHER_OFFLINE")
    try:
        hub = HfApi()
        hub.create_repo(repository, private=private, exist_ok=True)
        return str(hub.create_commit(repository, operations, commit_message=message).commit_url)
    except HFValidationError as error:
        raise ConfigError(f"{repository!r} is not a hub name ({error})", needed="owner/name") from error
    except (HfHubHTTPError, TransportError, OSError) as error:
        raise ModelError(
            f"{repository} could not be pushed ({first_line(error)})",
            change="log in with `hf auth login` and check the name",
        ) from error


def _pushable(folder: Path) -> FolderContents:
    contents = describe(folder)
    if contents.format not in (ADAPTER_HUB, SET_UP) or contents.has_pickles:
        raise ConfigError(
            f"{folder} is not in AdapterHub's format with safetensors",
            change=f"convert it: cypher adapters convert {folder} OUT --to adapterhub",
        )
    return contents
