"""Indexing: only what changed, through interruptions, with two writers, and with broken files."""

from __future__ import annotations

import os
import shutil
from functools import partial
from pathlib import Path

import pytest
from store_parts import open_store, read_until, rows, send, start_indexer, tiny_embedder, write_files

import cypher.apps.qa.index as index
from cypher.apps.qa.index import IndexReport, index_documents, index_paths, whole_document
from cypher.documents import Document
from cypher.errors import DataError, StoreError
from cypher.tasks.embed import Embedder


@pytest.fixture(scope="module")
def embedder(tmp_path_factory: pytest.TempPathFactory) -> Embedder:
    return tiny_embedder(tmp_path_factory.mktemp("model"))


def counts(report: IndexReport) -> tuple[int, int, int, int]:
    return report.added, report.updated, report.removed, report.unchanged


def test_only_changes_are_indexed(tmp_path: Path, embedder: Embedder, monkeypatch: pytest.MonkeyPatch) -> None:
    files, other = tmp_path / "files", tmp_path / "other"
    paths = write_files(files, 6)
    write_files(other, 2)
    store = open_store(tmp_path / "store", embedder)
    assert counts(index_paths(store, [files, other], embedder)) == (8, 0, 0, 0)

    embedded: list[str] = []
    embed = embedder.embed
    monkeypatch.setattr(embedder, "embed", lambda texts: embedded.extend(texts) or embed(texts))
    os.utime(paths[0], (1, 1))
    assert counts(index_paths(store, [files, other], embedder)) == (0, 0, 0, 8)
    assert not embedded

    paths[1].write_text("Zebra walnut.")
    paths[2].unlink()
    (files / "new.md").write_text("# Anchor\n\nBasket castle.")
    report = index_paths(store, files, embedder)
    assert counts(report) == (1, 1, 1, 4)
    assert embedded == ["Zebra walnut.", "Anchor. # Anchor\n\nBasket castle."]
    fresh = open_store(tmp_path / "fresh", embedder)
    assert index_paths(fresh, [files, other], embedder).passages == report.passages
    assert rows(store) == rows(fresh)


def test_what_leaves_and_what_stays(tmp_path: Path, embedder: Embedder) -> None:
    files = tmp_path / "files"
    paths = write_files(files, 3)
    (files / ".hidden.txt").write_text("Eagle desert.")
    os.link(paths[0], files / "zz.txt")
    store = open_store(tmp_path / "store", embedder)
    assert counts(index_paths(store, [files, files / ".hidden.txt"], embedder)) == (4, 0, 0, 0)
    # The first of two names of one file goes: the other one takes its place.
    paths[0].unlink()
    assert counts(index_paths(store, files, embedder)) == (1, 0, 1, 2)
    # A file that was named and is not found by walking stays while it exists.
    assert str(files / ".hidden.txt") in store.contents()
    shutil.rmtree(files)
    with pytest.raises(DataError, match="does not exist"):
        index_paths(store, files, embedder)
    files.mkdir()
    assert counts(index_paths(store, files, embedder)) == (0, 0, 4, 0)
    with pytest.raises(DataError, match="no file to read"):
        index_paths(store, files, embedder)
    with pytest.raises(DataError, match="no path was given"):
        index_paths(store, [], embedder)


def test_the_same_file_by_another_path_is_the_same(
    tmp_path: Path, embedder: Embedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_files(tmp_path / "files", 2)
    (tmp_path / "link").symlink_to(tmp_path / "files")
    monkeypatch.chdir(tmp_path)
    store = open_store(tmp_path / "store", embedder)
    assert counts(index_paths(store, "files", embedder)) == (2, 0, 0, 0)
    for path in (tmp_path / "files", tmp_path / "link", "files/../files", ["files/000.txt", "files/001.txt"]):
        assert counts(index_paths(store, path, embedder)) == (0, 0, 0, 2)
    assert {document.meta["path"] for document in store.documents()} == {"files/000.txt", "files/001.txt"}


def test_broken_files_are_reported_and_keep_their_passages(tmp_path: Path, embedder: Embedder) -> None:
    files = tmp_path / "files"
    paths = write_files(files, 3)
    store = open_store(tmp_path / "store", embedder)
    index_paths(store, files, embedder)
    before = rows(store)
    paths[1].write_bytes(b"")
    (files / "broken.pdf").write_bytes(b"%PDF-1.4 no more")
    met: list[DataError] = []
    report = index_paths(store, files, embedder, on_problem=met.append)
    assert counts(report) == (0, 0, 0, 2)
    assert [str(problem) for problem in met] == list(report.problems)
    assert [problem.split(".")[0][-6:] for problem in report.problems] == ["es/001", "broken"]
    assert rows(store) == before


def test_progress_counts_every_byte(tmp_path: Path, embedder: Embedder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index, "COMMIT_PASSAGES", 4)
    files = tmp_path / "files"
    size = sum(path.stat().st_size for path in write_files(files, 5))
    store = open_store(tmp_path / "store", embedder)
    for expected in ("added", "unchanged"):
        told: list[tuple[str, int, int]] = []
        report = index_paths(store, files, embedder, progress=partial(_tell, told))
        assert getattr(report, expected) == 5
        assert [step[1] for step in told] == sorted(step[1] for step in told)
        assert len(told) >= 5
        assert told[-1] == ("indexing", size, size)


def _tell(told: list[tuple[str, int, int]], *step: object) -> None:
    told.append(step)  # type: ignore[arg-type]


def test_commits_in_between_are_kept(tmp_path: Path, embedder: Embedder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index, "COMMIT_PASSAGES", 8)
    monkeypatch.setattr(index, "COMMITS_BETWEEN_OPTIMISATIONS", 2)
    files = tmp_path / "files"
    paths = write_files(files, 10)
    store = open_store(tmp_path / "store", embedder)

    def interrupt(what: str, done: int, total: int) -> None:
        if done * 2 > total:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        index_paths(store, files, embedder, progress=interrupt)
    kept = store.stats().documents
    assert 3 <= kept < 10
    report = index_paths(store, files, embedder)
    assert counts(report) == (10 - kept, 0, 0, kept)
    assert len(store.contents()) == len(paths)


def test_documents_in_memory(tmp_path: Path, embedder: Embedder) -> None:
    store = open_store(tmp_path / "store", embedder, words=0, overlap_words=0)
    documents = [
        Document(text="Apple river. Stone cloud.", meta={"title": "Fruit"}),
        Document(text="Lone \ud800 surrogate.", meta={"path": "odd \udcff"}),
        Document(text=" \n"),
    ]
    report = index_documents(store, [*documents, documents[0]], embedder, split=whole_document)
    assert counts(report) == (2, 0, 0, 0)
    assert report.passages == 2
    assert len(report.problems) == 1
    assert "is empty" in report.problems[0]
    assert counts(index_documents(store, documents[:1], embedder, split=whole_document)) == (0, 0, 0, 1)


def test_killed_run_goes_on_to_the_same_content(tmp_path: Path, embedder: Embedder) -> None:
    files = tmp_path / "files"
    paths = write_files(files, 40)
    store = open_store(tmp_path / "store", embedder)
    index_paths(store, files, embedder)
    for path in paths[::2]:  # updates as well as additions
        path.write_text(path.read_text() + " Zebra zebra.")
    for path in paths[1::4]:
        store.remove(path)
    process = start_indexer(embedder.loaded.folder, tmp_path / "store", files, pause=0.05)
    read_until(process, "ready")
    send(process)
    for _ in range(12):
        read_until(process, "progress")
    process.kill()
    process.wait()
    fresh = open_store(tmp_path / "fresh", embedder)
    index_paths(fresh, files, embedder)
    at_kill = rows(open_store(tmp_path / "store", embedder))
    assert at_kill != rows(fresh)
    report = index_paths(store, files, embedder, wait_seconds=1)
    assert report.updated + report.added > 0
    assert rows(store) == rows(fresh)
    assert not store.needs_optimising()


def test_two_writers_lose_nothing_and_repeat_nothing(tmp_path: Path, embedder: Embedder) -> None:
    files = tmp_path / "files"
    write_files(files, 20)
    processes = [start_indexer(embedder.loaded.folder, tmp_path / "store", files, pause=0.02) for _ in range(2)]
    for process in processes:  # both create the store at once, too
        read_until(process, "ready")
    for process in processes:
        send(process)
    lines = [read_until(process, "report") for process in processes]
    assert [process.wait() for process in processes] == [0, 0]
    assert sorted(line[-1] for line in lines) == ["report 0 0 20", "report 20 0 0"]
    assert sum("waiting" in line for line in lines) == 1
    fresh = open_store(tmp_path / "fresh", embedder)
    index_paths(fresh, files, embedder)
    assert rows(open_store(tmp_path / "store", embedder)) == rows(fresh)


def test_a_busy_store_is_named(tmp_path: Path, embedder: Embedder) -> None:
    write_files(tmp_path / "files", 1)
    first, second = (open_store(tmp_path / "store", embedder) for _ in range(2))
    told: list[str] = []
    with first.writing(), pytest.raises(StoreError, match=r"writer\.lock for 0 seconds"):
        index_paths(second, tmp_path / "files", embedder, on_wait=told.append, wait_seconds=0.1)
    assert len(told) == 1
    assert index_paths(second, tmp_path / "files", embedder, wait_seconds=0).added == 1
