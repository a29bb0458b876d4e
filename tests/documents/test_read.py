"""Files and folders to documents, and the refusal of whatever is no document."""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cypher.documents import READERS, find_files, read_document
from cypher.documents.source import read_bytes
from cypher.errors import DataError

ALL_FILES = ["a.txt", "b.MD", "c.html", "deep/d.pdf", "deep/deeper/f.vtt", "deep/e.docx"]


def names(root: Path, paths: list[Path]) -> list[str]:
    return [path.relative_to(root).as_posix() for path in paths]


@pytest.fixture
def unprivileged() -> Iterator[None]:
    """Permissions do not bind the superuser, so a test of them gives its rights away for a while."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_folder_is_walked_in_order_without_hidden_and_foreign_files(library: Path) -> None:
    assert names(library, find_files(library)) == ALL_FILES


def test_every_format_is_read_with_its_meta(library: Path) -> None:
    documents = [read_document(path) for path in find_files(str(library))]
    formats = ["text", "markdown", "html", "pdf", "vtt", "docx"]
    assert [document.meta["format"] for document in documents] == formats
    assert [document.meta["path"] for document in documents] == [f"{library}/{name}" for name in ALL_FILES]
    texts = ["Plain text.", "# Guide\n\nMarked text.", "Page text.", "Paged text.", "Spoken text.", "Word text."]
    assert [document.text for document in documents] == texts
    assert [document.meta.get("title") for document in documents] == [None, "Guide", "Page", None, None, None]


def test_touching_a_file_keeps_the_document_id(library: Path) -> None:
    before = read_document(library / "a.txt").id
    os.utime(library / "a.txt", (1, 1))
    assert read_document(library / "a.txt").id == before


def test_a_file_found_twice_is_read_once(library: Path) -> None:
    (library / "link.txt").symlink_to(library / "a.txt")
    found = find_files([library / "deep", library, library / "a.txt"])
    assert sorted(names(library, found)) == sorted(ALL_FILES)


def test_symlink_loops_end(library: Path) -> None:
    (library / "deep" / "up").symlink_to(library, target_is_directory=True)
    (library / "self").symlink_to(library / "self")
    (library / "ping").symlink_to(library / "pong")
    (library / "pong").symlink_to(library / "ping")
    assert names(library, find_files(library)) == ALL_FILES


def test_deep_folders_need_no_recursion(tmp_path: Path) -> None:
    folder = tmp_path.joinpath(*["d"] * 300)
    folder.mkdir(parents=True)
    (folder / "a.txt").write_text("Deep.")
    usual = sys.getrecursionlimit()
    sys.setrecursionlimit(len(inspect.stack()) + 100)
    try:
        assert find_files(tmp_path) == [folder / "a.txt"]
    finally:
        sys.setrecursionlimit(usual)


@pytest.mark.parametrize(
    ("name", "content", "line"),
    [
        ("empty.txt", b"", "is empty (0 bytes)"),
        ("blank.md", b" \r\n\t\n", "is empty (white space only)"),
        ("mark.txt", b"\xef\xbb\xbf", "is empty (white space only)"),
        ("nul.txt", b"some\x00text", "is a binary file"),
        ("undecodable.txt", b"\x81\x8d\x8f\x90\x9d", "is a binary file"),
        ("controls.txt", bytes(range(1, 32)) * 20, "is a binary file"),
        ("odd-utf16.txt", b"\xff\xfea\x00b", "is a binary file"),
        ("archive.zip", b"PK", "suffix that is not read: needs one of .txt"),
        ("README", b"words", "suffix that is not read"),
        ("nothing.html", b"<script>let x</script>", "has no visible text"),
        ("broken.pdf", b"%PDF-1.7\ngarbage", "is not a readable PDF"),
        ("not.pdf", b"plain words", "is not a readable PDF"),
        ("empty.pdf", b"", "is empty (0 bytes)"),
        ("broken.docx", b"PK\x03\x04 garbage", "is not a readable Word file"),
        ("old.docx", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"\0" * 600, "old .doc file"),
        ("not.vtt", b"1\n00:00:01,000 --> 00:00:02,000\nHi\n", "is not a WebVTT file"),
        ("silent.vtt", b"WEBVTT\n\nNOTE nothing is said\n", "has no cues with words"),
    ],
)
def test_files_that_are_no_documents_are_refused_in_one_line(
    tmp_path: Path, name: str, content: bytes, line: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        read_document(path)
    message = str(caught.value)
    assert message.startswith(str(path))
    assert line in message
    assert "\n" not in message


@pytest.mark.parametrize("missing", ["nowhere.txt", "nowhere", "bad\0name.txt"])
def test_a_missing_path_is_refused_before_anything_is_read(library: Path, missing: str) -> None:
    with pytest.raises(DataError, match=r"does not exist|cannot be read"):
        find_files([library, library / missing])
    with pytest.raises(DataError, match=r"does not exist|cannot be read"):
        read_document(library / missing)


def test_no_path_and_a_folder_without_documents_are_refused(tmp_path: Path) -> None:
    (tmp_path / "picture.png").write_bytes(b"x")
    with pytest.raises(DataError, match="no file to read") as caught:
        find_files(tmp_path)
    assert all(suffix in str(caught.value) for suffix in READERS)
    with pytest.raises(DataError, match="no path"):
        find_files([])


def test_special_files_never_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.txt")
    (tmp_path / "a.txt").write_text("Fine.")
    with pytest.raises(DataError, match="pipe"):
        read_document(tmp_path / "pipe.txt")
    with pytest.raises(DataError, match="is a folder"):
        read_document(tmp_path)
    assert find_files(tmp_path) == [tmp_path / "a.txt"]


def test_a_dangling_link_is_named_when_it_looks_like_a_document(library: Path) -> None:
    (library / "gone.txt").symlink_to(library / "nowhere.txt")
    (library / "gone").symlink_to(library / "nowhere")
    problems: list[DataError] = []
    assert names(library, find_files(library, on_error=problems.append)) == ALL_FILES
    assert [str(problem) for problem in problems] == [f"{library}/gone.txt does not exist: needs a file or a folder"]


def test_too_large_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "dump.txt"
    path.touch()
    os.truncate(path, 201 * 2**20)  # sparse: takes no space
    with pytest.raises(DataError, match="has 201 MiB: needs at most 200 MiB a file; split"):
        read_document(path)
    (tmp_path / "edge.txt").write_bytes(b"1234")
    assert read_bytes(tmp_path / "edge.txt", max_bytes=4) == b"1234"


def test_permissions(open_folder: Path, unprivileged: None) -> None:
    problems: list[DataError] = []
    files = find_files(open_folder, on_error=problems.append)
    assert names(open_folder, files) == ["a.txt", "closed.txt"]
    assert [str(problem).split(":")[0] for problem in problems] == [f"{open_folder}/shut"]
    with pytest.raises(DataError, match=r"closed\.txt: permission denied; chmod u\+r"):
        read_document(open_folder / "closed.txt")
    with pytest.raises(DataError, match="shut: permission denied"):
        find_files(open_folder)
    with pytest.raises(DataError, match="shut: permission denied"):
        find_files(open_folder / "shut")


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """Outside of pytest's own folder, which only its owner may enter."""
    import tempfile

    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        (root / "shut").mkdir()
        (root / "shut" / "b.txt").write_text("Shut.")
        (root / "a.txt").write_text("Open.")
        (root / "closed.txt").write_text("Closed.")
        root.chmod(0o755)
        (root / "shut").chmod(0)
        (root / "closed.txt").chmod(0)
        yield root
        (root / "shut").chmod(0o700)


def test_a_name_that_is_not_utf8_stays_printable(tmp_path: Path) -> None:
    path = os.fsencode(tmp_path) + b"/caf\xe9.txt"
    try:
        with open(path, "wb") as file:
            file.write(b"Menu.")
    except OSError:
        pytest.skip("this file system only takes UTF-8 names")
    (file,) = find_files(tmp_path)
    document = read_document(file)
    assert document.meta["path"] == f"{tmp_path}/caf\\xe9.txt"
