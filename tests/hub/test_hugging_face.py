"""The hub's own client against a server on this machine that speaks the hub's protocol."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from cypher.hub.catalogue import ModelEntry
from cypher.hub.hugging_face import is_whole, is_whole_adapter

COMMIT = "a" * 40
FILES = {
    "config.json": b'{"model_type": "bert"}',
    "model.safetensors": b"weights " * 4096,
    "tokenizer.json": b"{}",
    "model.gguf": b"GGUF",
    "pytorch_model.bin": b"pickle",
    "README.md": b"read me",
}
ADAPTER = {"adapter_config.json": b"{}", "adapter.safetensors": b"weights", "pytorch_adapter.bin": b"pickle"}


class Hub(BaseHTTPRequestHandler):
    asked: list[str]

    def do_GET(self) -> None:
        self.answer()

    def do_HEAD(self) -> None:
        self.answer()

    def answer(self) -> None:
        path = self.path.split("?")[0]
        type(self).asked.append(path)
        name = path.rpartition(f"/resolve/{COMMIT}/")[2]
        files = {name: content for name, content in FILES.items() if "/quantised" not in path or name == "model.gguf"}
        if "owner/adapter" in path:
            files = ADAPTER
        if path.startswith("/api/models/owner/gone"):
            self.send_response(404)
            self.send_header("X-Error-Code", "RepoNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()
        elif path.startswith("/api/") and "/tree/" in path:
            self.reply(
                json.dumps(
                    [{"type": "file", "path": p, "size": len(c), "oid": "0" * 40} for p, c in files.items()]
                ).encode()
            )
        elif path.startswith("/api/"):
            siblings = [{"rfilename": name} for name in files]
            self.reply(json.dumps({"id": "owner/name", "sha": COMMIT, "siblings": siblings}).encode())
        elif name in files:
            self.reply(files[name])
        else:
            self.send_error(404)

    def reply(self, content: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def log_message(self, *arguments: object) -> None:
        """Say nothing."""


@pytest.fixture
def hub() -> Iterator[tuple[str, list[str]]]:
    """Address of a running hub and what it was asked."""
    handler = type("Running", (Hub,), {"asked": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", handler.asked
    server.shutdown()
    thread.join()
    server.server_close()


def python(code: str, *arguments: str, endpoint: str, home: Path, **extra: str) -> subprocess.CompletedProcess[str]:
    """Run code in a process of its own: the client reads its settings when it is imported."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "CYPHER_", "PIP_"))}
    environment |= {
        "HF_ENDPOINT": endpoint,
        "HF_HOME": str(home / "hf"),
        "CYPHER_CACHE": str(home / "cache"),
        "NO_PROXY": "127.0.0.1",
        **extra,
    }
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=60, env=environment
    )


RESOLVE = """
import sys
from cypher.errors import CypherError
from cypher.hub import resolve
try:
    formats = sys.argv[2:] or ("safetensors", "gguf")
    folder = resolve(sys.argv[1], formats=formats, progress=lambda *step: print("progress", *step))
    print(*sorted(path.name for path in folder.iterdir()))
except CypherError as error:
    print("error", error)
"""
ADAPTER_OF = """
import sys
from cypher.errors import CypherError
from cypher.hub.hugging_face import resolve_adapter
try:
    print(*sorted(path.name for path in resolve_adapter(sys.argv[1]).iterdir()))
except CypherError as error:
    print("error", error)
"""
ENTRY = """
import sys
from cypher.errors import CypherError
from cypher.hub.catalogue import ModelEntry
from cypher.hub.hugging_face import is_whole
from cypher.hub.fetch import fetch_entry
try:
    folder = fetch_entry(ModelEntry.model_validate_json(sys.argv[1]))
    print(*sorted(path.name for path in folder.iterdir()))
except CypherError as error:
    print("error", error)
"""


def test_a_hub_name_gives_only_files_without_code_and_is_then_read_offline(
    hub: tuple[str, list[str]], tmp_path: Path
) -> None:
    endpoint, asked = hub
    first = python(RESOLVE, "owner/name", "safetensors", endpoint=endpoint, home=tmp_path)
    assert first.stdout.splitlines()[-1] == "config.json model.safetensors tokenizer.json", first.stderr
    assert f"progress owner/name {32768 + 24} {32768 + 24}" in first.stdout
    assert first.stderr == ""
    so_far = len(asked)
    again = python(RESOLVE, "owner/name", "safetensors", endpoint=endpoint, home=tmp_path)
    offline = python(RESOLVE, "owner/name", "safetensors", endpoint=endpoint, home=tmp_path, HF_HUB_OFFLINE="1")
    assert again.stdout == offline.stdout == "config.json model.safetensors tokenizer.json\n"
    assert len(asked) == so_far


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("owner/gone", "error there is no folder owner/gone, and the hub refused owner/gone (404"),
        ("owner/name@", "error there is no folder"),
    ],
)
def test_a_refusal_is_one_line(hub: tuple[str, list[str]], tmp_path: Path, name: str, message: str) -> None:
    done = python(RESOLVE, name, endpoint=hub[0], home=tmp_path)
    assert done.stdout.startswith(message), done.stdout + done.stderr
    assert done.stdout.count("\n") == 1


def test_a_closed_network_is_known_in_seconds(tmp_path: Path) -> None:
    done = python(RESOLVE, "owner/name", endpoint="http://127.0.0.1:9", home=tmp_path)
    assert done.stdout.startswith("error there is no folder owner/name, and the hub could not be reached"), done.stderr
    assert done.stderr == ""


@pytest.mark.parametrize("lost", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_snapshot_that_an_interrupted_fetch_left_is_completed(
    hub: tuple[str, list[str]], tmp_path: Path, lost: str
) -> None:
    python(RESOLVE, "owner/name", "safetensors", endpoint=hub[0], home=tmp_path)
    (path,) = tmp_path.glob(f"hf/hub/models--owner--name/snapshots/*/{lost}")
    path.unlink()
    offline = python(RESOLVE, "owner/name", "safetensors", endpoint=hub[0], home=tmp_path, HF_HUB_OFFLINE="1")
    assert "in the cache and the network is off" in offline.stdout or lost == "tokenizer.json"
    again = python(RESOLVE, "owner/name", "safetensors", endpoint=hub[0], home=tmp_path)
    assert again.stdout.splitlines()[-1] == "config.json model.safetensors tokenizer.json", again.stderr


@pytest.mark.parametrize(
    ("files", "whole"),
    [
        (("model.safetensors", "config.json", "tokenizer.json"), True),
        (("model.safetensors", "config.json", "vocab.txt"), True),
        (("model.gguf",), True),
        (("model.safetensors", "config.json"), False),
        (("model.safetensors", "tokenizer.json"), False),
        (("config.json", "tokenizer.json"), False),
        (("model.safetensors.index.json", "one.safetensors", "two.safetensors", "config.json", "tokenizer.json"), True),
        (("model.safetensors.index.json", "one.safetensors", "config.json", "tokenizer.json"), False),
    ],
)
def test_what_a_whole_snapshot_is(files: tuple[str, ...], whole: bool, tmp_path: Path) -> None:
    for name in files:
        (tmp_path / name).write_text('{"weight_map": {"a": "one.safetensors", "b": "two.safetensors"}}')
    assert is_whole(tmp_path) == whole


@pytest.mark.parametrize(
    ("files", "whole"),
    [
        (("adapter_config.json", "adapter.safetensors"), True),
        (("adapter_config.json", "adapter.safetensors", "head_config.json", "model_head.safetensors"), True),
        (("adapter_setup.json", "a/adapter_config.json", "a/adapter.safetensors"), True),
        (("adapter_config.json", "model_head.safetensors"), False),
        (("adapter.safetensors",), False),
        (("a/adapter_config.json", "a/adapter.safetensors", "b/adapter_config.json"), False),
        (("a,b/adapter_fusion_config.json", "a/adapter_config.json", "a/adapter.safetensors"), False),
        (("config.json", "model.safetensors", "tokenizer.json"), False),
    ],
)
def test_what_a_whole_adapter_is(files: tuple[str, ...], whole: bool, tmp_path: Path) -> None:
    for name in files:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert is_whole_adapter(tmp_path) == whole


def test_an_adapter_is_fetched_once_and_completed_when_a_part_of_it_is_lost(
    hub: tuple[str, list[str]], tmp_path: Path
) -> None:
    endpoint, asked = hub
    whole = "adapter.safetensors adapter_config.json\n"
    assert python(ADAPTER_OF, "owner/adapter", endpoint=endpoint, home=tmp_path).stdout == whole
    so_far = len(asked)
    assert python(ADAPTER_OF, "owner/adapter", endpoint=endpoint, home=tmp_path).stdout == whole
    assert len(asked) == so_far
    (weights,) = tmp_path.glob("hf/hub/models--owner--adapter/snapshots/*/adapter.safetensors")
    weights.unlink()
    offline = python(ADAPTER_OF, "owner/adapter", endpoint=endpoint, home=tmp_path, HF_HUB_OFFLINE="1")
    assert "in the cache and the network is off" in offline.stdout
    assert python(ADAPTER_OF, "owner/adapter", endpoint=endpoint, home=tmp_path).stdout == whole


def test_a_repository_of_gguf_files_is_refused_before_they_are_fetched_where_none_is_read(
    hub: tuple[str, list[str]], tmp_path: Path
) -> None:
    done = python(RESOLVE, "owner/quantised", "safetensors", endpoint=hub[0], home=tmp_path)
    assert "owner/quantised has no safetensors weights, only gguf: needs" in done.stdout, done.stderr
    assert not any("/resolve/" in path for path in hub[1])
    assert python(RESOLVE, "owner/quantised", endpoint=hub[0], home=tmp_path).stdout.endswith("\nmodel.gguf\n")


@pytest.mark.parametrize("good", [True, False], ids=["right sum", "wrong sum"])
def test_a_catalogue_row_falls_back_to_the_hub_and_checks_its_sums(
    entry: ModelEntry, hub: tuple[str, list[str]], tmp_path: Path, good: bool
) -> None:
    row = entry.model_dump()
    row["sources"] = [*row["sources"], {"kind": "hub", "repository": "owner/name", "revision": COMMIT}]
    if not good:
        row["files"][0]["sha256"] = "0" * 64
    done = python(
        ENTRY,
        ModelEntry.model_validate(row).model_dump_json(),
        endpoint=hub[0],
        home=tmp_path,
        PIP_NO_INDEX="1",
    )
    if good:
        assert done.stdout == "config.json model.safetensors\n", done.stderr
    else:
        assert "owner/name: model.safetensors is missing or differs: needs sha256 000000000000…" in done.stdout
        assert "pip could not download tiny-model==1.0" in done.stdout
