"""What a folder of an adapter holds, ours or AdapterHub's, read from its configuration and the headers of its files."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from cypher.adapters.folder import read_json, seen_from
from cypher.errors import ModelError

OURS, ADAPTER_HUB, FUSION, SET_UP = "cypher", "adapterhub", "adapterhub fusion", "adapterhub set-up"
"""The formats; those of AdapterHub's library are written by :mod:`cypher.adapters.hub_folder`."""

_WEIGHTS = {
    OURS: "adapter.safetensors",
    ADAPTER_HUB: "adapter.safetensors",
    FUSION: "model_adapter_fusion.safetensors",
}


@dataclass(frozen=True, kw_only=True)
class FolderContents:
    """What a folder says of itself.

    Args:
        path: Of the folder.
        format: ``cypher``, ``adapterhub``, ``adapterhub fusion`` or ``adapterhub set-up``.
        name: Of the adapter or fusion.
        model_name: Model it was trained on.
        model_type: Of that model, where the folder says it.
        method: Of the adapter, or of a union's parts.
        config: As the folder has it.
        n_parameters: Values in its tensors; ``None`` when they are a pickle.
        bytes: Of all files.
        head: Kind of its prediction head.
        has_pickles: Whether weights are pickles alone.
        composition: Of a set-up.
        parts: Of a set-up: its adapters and fusions.
    """

    path: Path
    format: str
    name: str
    model_name: str = ""
    model_type: str = ""
    method: str = ""
    config: dict[str, Any]
    n_parameters: int | None = None
    bytes: int
    head: str | None = None
    has_pickles: bool = False
    composition: str | None = None
    parts: tuple[FolderContents, ...] = ()


def describe(folder: Path) -> FolderContents:
    """Read what ``folder`` says of itself; no tensor is loaded.

    Raises:
        ModelError: It holds no adapter.
    """
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    if (folder / "adapter_setup.json").is_file():
        about = read_json(folder / "adapter_setup.json")
        # A fusion's sub-folder has its adapters' names with commas between them.
        parts = tuple(describe(path) for path in sorted(folder.iterdir()) if _holds_adapter(path))
        return FolderContents(
            path=folder,
            format=SET_UP,
            name=folder.name,
            config=about["adapter_setup"],
            n_parameters=None if any(part.n_parameters is None for part in parts) else _total(parts),
            bytes=size,
            has_pickles=any(part.has_pickles for part in parts),
            composition=shown_setup(about["adapter_setup"]),
            parts=parts,
        )
    if (folder / "adapter_fusion_config.json").is_file():
        return _single(folder, FUSION, read_json(folder / "adapter_fusion_config.json"), size)
    if (folder / "adapter_config.json").is_file():
        about = read_json(folder / "adapter_config.json")
        config = about.get("config")
        return _single(folder, OURS if isinstance(config, dict) and "method" in config else ADAPTER_HUB, about, size)
    raise ModelError(
        f"{folder} holds no adapter", needed="adapter_config.json, adapter_fusion_config.json or adapter_setup.json"
    )


def shown_setup(values: dict[str, Any]) -> str:
    """A set-up's composition in one line."""
    if values.get("type") == "single":
        return repr(values["children"][0])
    options = [f"{name}={value}" for name, value in (values.get("kwargs") or {}).items()]
    return f"{values.get('type')}({', '.join([*map(shown_setup, values.get('children', [])), *options])})"


def _single(folder: Path, kind: str, about: dict[str, Any], size: int) -> FolderContents:
    weights, config = folder / _WEIGHTS[kind], about.get("config")
    config = config if isinstance(config, dict) else {}
    head = None
    if (folder / "head_config.json").is_file():
        said = read_json(folder / "head_config.json")
        head = said.get("kind") or (said.get("config") or {}).get("head_type") or "unnamed"
    return FolderContents(
        path=folder,
        format=kind,
        name=str(about.get("name")),
        model_name=seen_from(folder, str(about.get("model_name") or "")),
        model_type=str(about.get("model_type") or ""),
        method="fusion" if kind == FUSION else _method(config),
        config=config,
        n_parameters=_count(weights),
        bytes=size,
        head=None if head is None else str(head),
        has_pickles=not weights.is_file(),
    )


def _method(config: dict[str, Any]) -> str:
    parts = config.get("parts") or config.get("configs")
    if parts:
        return " + ".join(map(_method, parts))
    if "method" in config:
        return str(config["method"])
    if config.get("architecture") == "lora":
        named = [name for name, is_on in (("dora", config.get("use_dora")), ("vera", config.get("vera_d"))) if is_on]
        return "ia3" if config.get("composition_mode") == "scale" else "-".join(named) or "lora"
    return str(config.get("architecture") or ("compacter" if config.get("phm_layer") else "bottleneck"))


def _count(weights: Path) -> int | None:
    if not weights.is_file():
        return None
    try:
        with safe_open(weights, framework="pt") as stream:
            shapes: list[list[int]] = [stream.get_slice(name).get_shape() for name in stream.keys()]  # noqa: SIM118 - not a mapping
    except SafetensorError as error:
        raise ModelError(f"{weights} is broken or cut off ({error})") from None
    return sum(math.prod(shape) for shape in shapes)


def _total(parts: tuple[FolderContents, ...]) -> int:
    return sum(part.n_parameters or 0 for part in parts)


def _holds_adapter(path: Path) -> bool:
    return any((path / name).is_file() for name in ("adapter_config.json", "adapter_fusion_config.json"))
