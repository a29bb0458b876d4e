"""Files appear whole or not at all."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from cypher.errors import DataError, ModelError
from cypher.files import read_json, replacing, write_bytes, write_text


def test_text_is_written_as_it_is(tmp_path: Path) -> None:
    path = write_text(tmp_path / "new" / "folder" / "a.txt", "Größe\r\n")
    assert path.read_bytes() == "Größe\r\n".encode()
    assert os.listdir(path.parent) == ["a.txt"]


@pytest.mark.parametrize("interruption", [RuntimeError, ValueError, KeyboardInterrupt])
def test_an_interrupted_write_leaves_the_old_file(tmp_path: Path, interruption: type[BaseException]) -> None:
    path = write_text(tmp_path / "a.txt", "old")

    def fail() -> None:
        with replacing(path) as partial:
            partial.write_text("half")
            assert path.read_text() == "old"
            raise interruption

    with pytest.raises(interruption):
        fail()
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no /dev/full")
def test_a_full_disk_is_said_with_its_remedy(tmp_path: Path) -> None:
    with (
        pytest.raises(DataError, match=r"a.txt cannot be written: No space left on device; free some space"),
        replacing(tmp_path / "a.txt"),
        open("/dev/full", "wb", buffering=0) as stream,
    ):
        stream.write(b"x")


def test_permissions_of_the_old_file_and_the_umask_hold(tmp_path: Path) -> None:
    private = tmp_path / "private.txt"
    private.write_text("old")
    private.chmod(0o600)
    write_text(private, "new")
    fresh, reference = write_text(tmp_path / "fresh.txt", "new"), tmp_path / "reference.txt"
    reference.write_text("made by open")
    assert stat.S_IMODE(private.stat().st_mode) == 0o600
    assert fresh.stat().st_mode == reference.stat().st_mode


def test_a_link_keeps_pointing(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    link = tmp_path / "link.txt"
    link.symlink_to(tmp_path / "real" / "target.txt")
    write_bytes(link, b"x")
    assert link.is_symlink()
    assert (tmp_path / "real" / "target.txt").read_bytes() == b"x"


def test_the_partial_file_has_the_suffix_and_long_names_fit(tmp_path: Path) -> None:
    path = tmp_path / ("n" * 240 + ".png")
    with replacing(path) as partial:
        assert partial.suffix == ".png"
        assert partial.parent == tmp_path
        partial.write_bytes(b"x")
    assert path.read_bytes() == b"x"


def test_impossible_places_are_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    for place, line in [
        (tmp_path, "is a folder: needs the path of a file"),
        (tmp_path / "file" / "a.txt", "cannot be written: Not a directory"),
        (Path("/dev/null"), "is a pipe, a socket or a device"),
        (tmp_path / "nul\0.txt", "cannot be written"),
    ]:
        with pytest.raises(DataError, match=line):
            write_text(place, "x")
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)
    assert os.listdir(tmp_path) == ["file"]


def test_a_full_disk_is_one_line() -> None:
    if not os.path.exists("/dev/full"):
        pytest.skip("only Linux has a device that is always full")
    with pytest.raises(DataError, match="device"):
        write_text("/dev/full", "x")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "a.json cannot be read (No such file or directory): needs a map"),
        (b"{", "a.json cannot be read (Expecting property name"),
        (b"\xff", "a.json cannot be read ("),
        (b"[" * 100_000, "a.json cannot be read ("),
        (b"[1]", "a.json holds a list: needs a map"),
    ],
)
def test_a_file_that_holds_no_json_object_is_named(content: bytes | None, said: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(ModelError) as caught:
        read_json(tmp_path / "a.json", kind=ModelError, needed="a map")
    assert said in str(caught.value)
