"""Tensors in and out of safetensors files; other formats of weights can run code and are not read."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from cypher.errors import ModelError
from cypher.files import replacing

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
_PICKLES = {".bin", ".pt", ".pth", ".ckpt", ".pkl"}


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a file or a model folder, mapped from disk: a page is read when it is first used.

    Args:
        path: A ``.safetensors`` file, a ``.safetensors.index.json`` that names shards, or a folder with
            ``model.safetensors`` or its index.

    Returns:
        Name → tensor on the CPU, with the shape and dtype of the file. Writing to one changes memory only.

    Raises:
        ModelError: No such file, a broken one, a shard missing, or weights that are a pickle.

    Example:
        >>> import tempfile, torch
        >>> path = Path(tempfile.mkdtemp()) / "model.safetensors"
        >>> write_safetensors(path, {"scale": torch.ones(2)})
        >>> read_safetensors(path)["scale"]
        tensor([1., 1.])
    """
    path = _weights_file(path)
    if path.suffix != ".json":
        return _read_one(path)
    tensors: dict[str, Tensor] = {}
    listed = _listed(path)
    for shard in sorted(set(listed.values())):
        if Path(shard).name != shard:
            raise ModelError(f"{path}: shard {shard!r}", needed="a file beside the index")
        tensors |= _read_one(path.with_name(shard))
    missing = sorted(listed.keys() - tensors.keys())
    if missing:
        raise ModelError(f"{path} lists {len(missing)} tensors that no shard holds, such as {missing[0]!r}")
    return tensors


def write_safetensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Write tensors to ``path`` in one step; see :func:`cypher.files.replacing`.

    Args:
        path: Where to; its folder is made if absent.
        tensors: Name → tensor of any device; views and tied tensors are written out in full, each.
        metadata: Text kept in the file's header.

    Raises:
        DataError: The disk is full or the folder cannot be written.
        ModelError: The tensors cannot be written.
    """
    # The format adds this key so that other readers know whose tensors these are.
    header = {"format": "pt", **(metadata or {})}
    try:
        with replacing(path) as partial:
            mode = partial.stat().st_mode  # as the person's umask has it; the library's own is narrower
            try:
                save_file(_own_memory(tensors), partial, metadata=header)
            except SafetensorError as error:
                # The library says what the system said in words of its own.
                if found := re.search(r"os error (\d+)", str(error)):
                    raise OSError(int(found[1]), os.strerror(int(found[1]))) from error
                raise
            partial.chmod(mode)
    except SafetensorError as error:
        raise ModelError(f"{path} could not be written ({error})") from error


def _weights_file(path: Path) -> Path:
    if path.suffix in _PICKLES:
        raise _pickle_refused(path)
    if not path.is_dir():
        return path
    for name in (WEIGHTS, INDEX):
        if (path / name).is_file():
            return path / name
    pickles = sorted(found for found in path.iterdir() if found.suffix in _PICKLES)
    if pickles:
        raise _pickle_refused(pickles[0])
    raise ModelError(f"{path} has no weights", needed=f"{WEIGHTS} or {INDEX}")


def _pickle_refused(path: Path) -> ModelError:
    return ModelError(
        f"{path} is a pickle, which can run code when read",
        needed="safetensors",
        change="convert it where you trust it: load it with the library that wrote it and save it as safetensors",
    )


def _read_one(path: Path) -> dict[str, Tensor]:
    try:
        with safe_open(path, framework="pt") as stream:
            return {name: stream.get_tensor(name) for name in stream.keys()}  # noqa: SIM118 - not a mapping
    except FileNotFoundError as error:
        raise ModelError(f"there is no file {path}", needed="safetensors weights") from error
    except SafetensorError as error:
        raise ModelError(f"{path} is broken or cut off ({error})", change="fetch it again") from error


def _listed(index: Path) -> dict[str, str]:
    try:
        listed = json.loads(index.read_text("utf-8"))["weight_map"]
        return {str(name): str(shard) for name, shard in listed.items()}
    except FileNotFoundError as error:
        raise ModelError(f"there is no file {index}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"{index} is no index of shards", needed="a JSON object with weight_map") from error


def _own_memory(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors on the CPU, each with memory of its own: the format refuses views and ties."""
    owned: dict[str, Tensor] = {}
    taken: set[int] = set()
    for name, tensor in tensors.items():
        alone = tensor.detach().cpu().contiguous()
        if alone.data_ptr() in taken or alone.untyped_storage().nbytes() != alone.nbytes:
            alone = alone.clone()
        taken.add(alone.data_ptr())
        owned[name] = alone
    return owned
