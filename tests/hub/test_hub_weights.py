from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from cypher.errors import DataError, ModelError
from cypher.hub.weights import read_safetensors, write_safetensors


def test_tensors_come_back_as_they_were(tmp_path: Path) -> None:
    base = torch.arange(12.0).reshape(3, 4)
    tensors = {
        "whole": base,
        "tied": base,
        "view": base[1:],
        "turned": base.T,
        "half": base.to(torch.bfloat16),
        "count": torch.tensor(3),
        "empty": torch.empty(0, 2),
        "trained": torch.nn.Parameter(base.clone()),
    }
    path = tmp_path / "new" / "model.safetensors"
    write_safetensors(path, tensors, {"note": "a test"})
    read = read_safetensors(path)
    assert read.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert read[name].dtype == tensor.dtype
        assert torch.equal(read[name], tensor)
    assert [entry.name for entry in path.parent.iterdir()] == ["model.safetensors"]


def test_writing_to_a_read_tensor_leaves_the_file(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    write_safetensors(path, {"scale": torch.ones(4)})
    read_safetensors(path)["scale"].zero_()
    assert torch.equal(read_safetensors(path)["scale"], torch.ones(4))


def test_a_new_file_has_the_rights_the_umask_gives(tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    write_safetensors(tmp_path / "model.safetensors", {"scale": torch.ones(1)})
    assert (tmp_path / "model.safetensors").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    write_safetensors(path, {"scale": torch.ones(1)})
    with pytest.raises(DataError, match="cannot be written"):
        write_safetensors(path / "below", {"scale": torch.zeros(1)})
    assert torch.equal(read_safetensors(path)["scale"], torch.ones(1))
    assert len(list(tmp_path.iterdir())) == 1


FULL = """
import resource, signal, sys, torch
from pathlib import Path
from cypher.errors import DataError
from cypher.hub.weights import write_safetensors
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    write_safetensors(Path(sys.argv[1]), {"scale": torch.ones(10_000)})
except DataError as error:
    print(error)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="files have no limit to set")
def test_what_the_system_refuses_is_a_data_error(tmp_path: Path) -> None:
    """A limit on the size of files stands for a disk that is full: both end the library's own writing."""
    path = tmp_path / "model.safetensors"
    done = subprocess.run([sys.executable, "-c", FULL, str(path)], capture_output=True, text=True, check=True)
    assert done.stdout == f"{path} cannot be written: File too large\n"
    assert not list(tmp_path.iterdir())


def test_shards_are_read_through_their_index(tmp_path: Path) -> None:
    write_safetensors(tmp_path / "model-1.safetensors", {"a": torch.ones(1)})
    write_safetensors(tmp_path / "model-2.safetensors", {"b": torch.zeros(1)})
    index = tmp_path / "model.safetensors.index.json"
    listed = {"a": "model-1.safetensors", "b": "model-2.safetensors"}
    index.write_text(json.dumps({"weight_map": listed}))
    assert sorted(read_safetensors(tmp_path)) == sorted(read_safetensors(index)) == ["a", "b"]
    for change, message in [
        ({"c": "model-2.safetensors"}, "lists 1 tensors that no shard holds, such as 'c'"),
        ({"c": "model-3.safetensors"}, "there is no file .*model-3"),
        ({"c": "../model.safetensors"}, "needs a file beside the index"),
    ]:
        index.write_text(json.dumps({"weight_map": listed | change}))
        with pytest.raises(ModelError, match=message):
            read_safetensors(tmp_path)
    index.write_text("[]")
    with pytest.raises(ModelError, match="no index of shards"):
        read_safetensors(tmp_path)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "model.pth"])
def test_pickles_are_refused_by_name_and_in_a_folder(tmp_path: Path, name: str) -> None:
    # The file would run this command if anyone unpickled it.
    (tmp_path / name).write_bytes(b"cos\nsystem\n(S'touch ran'\ntR.")
    for path in (tmp_path / name, tmp_path):
        with pytest.raises(ModelError, match=r"is a pickle.*: needs safetensors; convert it"):
            read_safetensors(path)
    assert not os.path.exists("ran")


@pytest.mark.parametrize("cut", [0, 4, 40])
def test_a_broken_file_is_one_line(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "model.safetensors"
    write_safetensors(path, {"scale": torch.ones(100)})
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(ModelError, match="broken or cut off"):
        read_safetensors(path)
    (tmp_path / "bare").mkdir()
    with pytest.raises(ModelError, match="has no weights"):
        read_safetensors(tmp_path / "bare")
