"""The store refuses what does not fit, survives what breaks, and says what to do."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from store_parts import WIDTH, Rows, open_store, rows, tiny_embedder, write_files

from cypher.apps.qa.index import index_paths
from cypher.apps.qa.retrieve import Retriever
from cypher.apps.qa.store import PassageStore
from cypher.apps.qa.store_settings import embedder_identity
from cypher.errors import ConfigError, StoreError, WrongStoreError
from cypher.tasks.embed import Embedder


@pytest.fixture(scope="module")
def embedder(tmp_path_factory: pytest.TempPathFactory) -> Embedder:
    return tiny_embedder(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def indexed(tmp_path_factory: pytest.TempPathFactory, embedder: Embedder) -> Path:
    """A store of ten files, to copy."""
    folder = tmp_path_factory.mktemp("indexed")
    write_files(folder / "files", 10)
    index_paths(open_store(folder / "store", embedder), folder / "files", embedder)
    return folder / "store"


@pytest.fixture
def store_folder(tmp_path: Path, indexed: Path) -> Path:
    return Path(shutil.copytree(indexed, tmp_path / "store"))


def reopen(folder: Path, embedder: Embedder, **changes: object) -> PassageStore:
    given = {"model": embedder_identity(embedder), "width": WIDTH, **changes}
    return PassageStore.open(folder, **given)  # type: ignore[arg-type]


def test_settings_are_kept_and_compared(store_folder: Path, embedder: Embedder, tmp_path: Path) -> None:
    store = reopen(store_folder, embedder)
    assert (store.settings.words, store.settings.overlap_words) == (20, 5)
    assert store.settings.model.partition("@")[0] == embedder.loaded.folder.name
    # The same weights under another name fit; other weights of the same shapes do not.
    reopen(store_folder, embedder, model=embedder_identity(embedder, name="renamed"))
    other = tiny_embedder(tmp_path / "other", seed=1)
    with pytest.raises(StoreError) as refused:
        reopen(store_folder, embedder, model=embedder_identity(other, name="other"))
    assert store.settings.model in str(refused.value)
    assert "other@" in str(refused.value)
    assert "--rebuild" in str(refused.value)


@pytest.mark.parametrize("change", [{"words": 21}, {"overlap_words": 4}, {"width": 8}, {"model": "tiny@1"}])
def test_other_settings_are_refused(store_folder: Path, embedder: Embedder, change: dict[str, object]) -> None:
    with pytest.raises(StoreError, match="was indexed with"):
        reopen(store_folder, embedder, **change)


def test_rebuild_empties_and_takes_new_settings(store_folder: Path) -> None:
    (store_folder / "mine.txt").write_text("stays")
    store = PassageStore.rebuild(store_folder, model="other@1", width=8, words=50, overlap_words=0)
    assert (store.stats().passages, store.stats().model, store.stats().words) == (0, "other@1", 50)
    assert (store_folder / "mine.txt").read_text() == "stays"


def test_no_store(tmp_path: Path, embedder: Embedder) -> None:
    (tmp_path / "file").write_text("")
    cases = {tmp_path / "missing": "there is no store", tmp_path / "file": "is a file"}
    for uri, message in cases.items():
        with pytest.raises(WrongStoreError, match=message):
            reopen(uri, embedder)
    with pytest.raises(WrongStoreError, match="there is no store"):
        PassageStore.existing(tmp_path / "missing")
    assert not (tmp_path / "missing").exists()


@pytest.mark.parametrize("kind", [str, Path])
def test_a_url_is_no_folder(
    tmp_path: Path, embedder: Embedder, monkeypatch: pytest.MonkeyPatch, kind: Callable[[str], Path]
) -> None:
    monkeypatch.chdir(tmp_path)
    for uri in ("postgresql://host/db", "http://host/folder", "s3://bucket/x"):
        with pytest.raises(WrongStoreError, match="path of a folder"):
            reopen(kind(uri), embedder, create=True)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("words", "overlap_words", "kept"),
    [
        (None, None, (150, 30)),
        (20, None, (20, 4)),
        (3, None, (3, 0)),
        (None, 10, (150, 10)),
        (0, None, (0, 0)),
        (20, 30, "overlap_words = 30: needs 0 to 19"),
        (None, 150, "overlap_words = 150"),
        (-1, None, "words = -1: needs at least 1 word"),
        (0, 5, "words = 0: needs at least 1 word"),
    ],
)
def test_lengths_that_cannot_be_cut_make_no_store(
    tmp_path: Path, embedder: Embedder, words: int | None, overlap_words: int | None, kept: tuple[int, int] | str
) -> None:
    lengths = {"words": words, "overlap_words": overlap_words}
    for call in (
        lambda: reopen(tmp_path / "store", embedder, create=True, **lengths),
        lambda: PassageStore.rebuild(tmp_path / "again", model="tiny@0", width=WIDTH, **lengths),  # type: ignore[arg-type]
    ):
        if isinstance(kept, str):
            with pytest.raises(ConfigError, match=kept):
                call()
        else:
            settings = call().settings
            assert (settings.words, settings.overlap_words) == kept
    if isinstance(kept, str):
        assert not (tmp_path / "store").exists()
        assert not (tmp_path / "again").exists()


def test_the_stores_own_overlap_goes_with_its_own_words(store_folder: Path, embedder: Embedder) -> None:
    assert reopen(store_folder, embedder, words=20).settings.overlap_words == 5
    with pytest.raises(WrongStoreError, match="was indexed with"):
        reopen(store_folder, embedder, words=25)


@pytest.mark.parametrize("changes", [{"words": 10, "overlap_words": 2}, {"model": "another@1"}])
def test_a_writer_never_writes_into_a_store_that_another_one_rebuilt(
    store_folder: Path, embedder: Embedder, tmp_path: Path, changes: dict[str, object]
) -> None:
    store = reopen(store_folder, embedder)
    given = {"model": embedder_identity(embedder), "width": WIDTH, "words": 20, "overlap_words": 5, **changes}
    rebuilt = PassageStore.rebuild(store_folder, **given)  # type: ignore[arg-type]
    assert not store.is_current()
    write_files(tmp_path / "more", 2)
    for write in (lambda: index_paths(store, tmp_path / "more", embedder), lambda: store.remove(tmp_path)):
        with pytest.raises(
            WrongStoreError, match=r"was rebuilt by another process with .*; run the same command again"
        ):
            write()
    assert rebuilt.stats().passages == 0


def test_a_writer_goes_on_in_a_store_rebuilt_with_the_same_settings(
    store_folder: Path, embedder: Embedder, tmp_path: Path
) -> None:
    store = reopen(store_folder, embedder)
    rebuilt = PassageStore.rebuild(
        store_folder, model=embedder_identity(embedder), width=WIDTH, words=20, overlap_words=5
    )
    write_files(tmp_path / "more", 2)
    assert store.is_current()
    assert Retriever(store, embedder).retrieve("apple") == []
    assert index_paths(store, tmp_path / "more", embedder).added == 2
    assert rebuilt.stats().documents == store.stats().documents == 2


def test_what_is_gone_from_the_disk_can_be_taken_out(tmp_path: Path, embedder: Embedder) -> None:
    write_files(tmp_path / "real" / "a", 2)
    write_files(tmp_path / "real" / "b", 3)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    store = open_store(tmp_path / "store", embedder)
    index_paths(store, tmp_path / "link", embedder)
    shutil.rmtree(tmp_path / "real" / "a")
    existing = PassageStore.existing(tmp_path / "store")
    assert existing.remove(tmp_path / "link" / "a") == 2
    assert len(existing.documents_below(tmp_path / "real")) == store.stats().documents == 3


def test_remove_and_stats(store_folder: Path, indexed: Path, embedder: Embedder) -> None:
    store = reopen(store_folder, embedder)
    files = indexed.parent / "files"
    assert store.stats().documents == 10
    assert store.remove(files / "003.txt") == 1
    assert store.remove(files / "003.txt") == 0
    assert store.remove(files.parent / "file") == 0
    assert str(files / "003.txt") not in store.contents()
    assert store.stats().passages == len(rows(store)) > 0
    other = reopen(store_folder, embedder)  # sees commits of another handle
    assert store.remove(files) == 9
    assert other.stats().documents == other.stats().passages == 0
    assert Retriever(other, embedder).retrieve("apple") == []


def truncate(pattern: str, share: float) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        for path in folder.glob(pattern):
            if path.is_file():
                os.truncate(path, int(path.stat().st_size * share))

    return damage


def delete(pattern: str) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        for path in folder.glob(pattern):
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    return damage


def write(name: str, content: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_text(content) and None


DAMAGE: dict[str, Callable[[Path], None]] = {
    "manifests cut": truncate("passages.lance/_versions/*", 0.5),
    "manifests empty": truncate("passages.lance/_versions/*", 0),
    "manifests gone": delete("passages.lance/_versions"),
    "data cut": truncate("passages.lance/data/*", 0.5),
    "data cut by a little": truncate("passages.lance/data/*", 0.99),
    "data empty": truncate("passages.lance/data/*", 0),
    "data gone": delete("passages.lance/data"),
    "table gone": delete("passages.lance"),
    "settings cut": truncate("store.json", 0.5),
    "settings gone": delete("store.json"),
    "settings of the wrong type": write("store.json", "[]"),
    "settings without a key": write("store.json", '{"format": 1}'),
    "settings of a later format": write("store.json", '{"format": 2, "model": "tiny@0"}'),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_damage_is_one_line_and_rebuild_mends_it(store_folder: Path, embedder: Embedder, kind: str) -> None:
    DAMAGE[kind](store_folder)
    with pytest.raises(StoreError) as refused:
        reopen(store_folder, embedder, create=True)
    assert str(store_folder) in str(refused.value)
    assert "--rebuild" in str(refused.value)
    assert ".rs" not in str(refused.value)
    assert len(str(refused.value)) < 500
    PassageStore.rebuild(store_folder, model=embedder_identity(embedder), width=WIDTH)
    assert reopen(store_folder, embedder).stats().passages == 0


def test_damage_found_while_in_use(store_folder: Path, embedder: Embedder) -> None:
    store = reopen(store_folder, embedder)
    delete("passages.lance/data")(store_folder)
    for use in (store.contents, store.documents, store.check, lambda: Retriever(store, embedder).retrieve("apple")):
        with pytest.raises(StoreError, match="is damaged"):
            use()


@pytest.mark.parametrize("damage", [delete("passages.lance/_indices"), truncate("passages.lance/_indices/*/*", 0.3)])
def test_a_damaged_text_index_is_built_anew(
    store_folder: Path, embedder: Embedder, damage: Callable[[Path], None]
) -> None:
    expected = Retriever(reopen(store_folder, embedder), embedder).retrieve("copper bridge zebra")
    assert any(passage.bm25 for passage in expected)
    damage(store_folder)
    assert Retriever(reopen(store_folder, embedder), embedder).retrieve("copper bridge zebra") == expected
    damage(store_folder)
    store = reopen(store_folder, embedder)
    store.optimise()
    assert Retriever(store, embedder).retrieve("copper bridge zebra") == expected


def test_a_store_killed_while_it_was_made_is_made_again(tmp_path: Path, embedder: Embedder) -> None:
    open_store(tmp_path / "store", embedder)
    (tmp_path / "store" / "store.json").unlink()
    assert open_store(tmp_path / "store", embedder).stats().passages == 0


def test_disk_use_stays_bounded(tmp_path: Path, embedder: Embedder, monkeypatch: pytest.MonkeyPatch) -> None:
    from datetime import timedelta

    import cypher.apps.qa.store as store_module

    monkeypatch.setattr(store_module, "_KEPT_FOR_READERS", timedelta(seconds=0.001))
    path = write_files(tmp_path / "files", 1)[0]
    store = open_store(tmp_path / "store", embedder)
    sizes = []
    for number in range(12):
        path.write_text(path.read_text() + f" Zebra {number}.")
        index_paths(store, tmp_path / "files", embedder)
        sizes.append(store.stats().bytes)
    assert sizes[-1] < 1.5 * sizes[1]


def test_full_disk_keeps_what_was_there(small_disk: Path, tmp_path: Path, embedder: Embedder) -> None:
    write_files(tmp_path / "first", 4)
    write_files(tmp_path / "second", 30, sentences_each=300)
    store = open_store(small_disk / "store", embedder)
    index_paths(store, tmp_path / "first", embedder)
    before = rows(store)
    with pytest.raises(StoreError, match=r"the disk that holds .* is full") as full:
        index_paths(store, tmp_path / "second", embedder)
    assert "free some space" in str(full.value)
    reopened = reopen(small_disk / "store", embedder)
    after = rows(reopened)
    assert before == Rows({key: after[key] for key in before})
    assert Retriever(reopened, embedder).retrieve("copper bridge")
    # With room again the same command completes, and the partial files are gone.
    subprocess.run(["mount", "-o", "remount,size=64m", str(small_disk)], check=True)
    index_paths(reopened, [tmp_path / "first", tmp_path / "second"], embedder)
    fresh = open_store(tmp_path / "fresh", embedder)
    index_paths(fresh, [tmp_path / "first", tmp_path / "second"], embedder)
    assert rows(reopened) == rows(fresh)


def test_settings_file_is_plain(store_folder: Path) -> None:
    assert json.loads((store_folder / "store.json").read_text()).keys() == {
        "model",
        "width",
        "words",
        "overlap_words",
        "format",
    }


def test_without_lancedb_it_says_what_to_install(
    tmp_path: Path, embedder: Embedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "lancedb", None)
    with pytest.raises(StoreError, match=r"nlp-cypher\[qa\]"):
        open_store(tmp_path / "store", embedder)


@pytest.mark.skipif(os.geteuid() != 0, reason="changing to a user without rights needs root")
def test_a_store_that_may_only_be_read(store_folder: Path, embedder: Embedder) -> None:
    for path in (store_folder, *store_folder.rglob("*")):
        path.chmod(0o555 if path.is_dir() else 0o444)
    for parent in store_folder.parents:
        if not parent.stat().st_mode & 0o001:
            parent.chmod(0o755)
    model = embedder_identity(embedder)
    expected = reopen(store_folder, embedder).stats().passages
    code = f"""
import os, sys
import lancedb, filelock, pyarrow
from cypher.apps.qa.store import PassageStore
from cypher.errors import StoreError
# What is imported late must be read while it still can be: a checkout may lie in a private folder.
PassageStore.open({str(store_folder)!r}, model={model!r}, width={WIDTH}).full_text("copper", limit=3)
os.setuid(65534)
store = PassageStore.open({str(store_folder)!r}, model={model!r}, width={WIDTH})
print(store.full_text("copper", limit=3).num_rows, store.stats().passages)
try:
    store.remove_sources(["/a.txt"])
except StoreError as error:
    print(error)
"""
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    lines = printed.splitlines()
    assert lines[0] == f"3 {expected}"
    assert "permission denied" in lines[1]
