from __future__ import annotations

import gzip
import hashlib
import http.server
import json
import os
import re
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import ValidationError

from cypher.data.catalogue import DataEntry, data_sets
from cypher.data.fetch import locate, locate_entry, present
from cypher.errors import DataError

SOURCE = json.dumps(
    {"version": "v2.0", "data": [{"title": title, "paragraphs": []} for title in ("one", "two", "three")]}
).encode()
KEPT = json.dumps(
    {"version": "v2.0", "data": [{"title": title, "paragraphs": []} for title in ("one", "three")]}
).encode()


def sum_of(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def an_entry(download: str = "https://localhost:9/{repository}/{revision}/{path}") -> DataEntry:
    """Two articles of three, and the source's file as it is."""
    kept = {"path": "small/kept.json", "source_path": "all.json", "size": len(KEPT), "sha256": sum_of(KEPT)}
    kept |= {"articles": ["one", "three"], "source_size": len(SOURCE), "source_sha256": sum_of(SOURCE)}
    whole = {
        "path": "small/all.json",
        "source_path": "all.json",
        "size": len(SOURCE),
        "sha256": sum_of(SOURCE),
    }
    row = data_sets()["squad/squad2_dev_open"].model_dump() | {"name": "small", "trainable": True}
    return DataEntry.model_validate(row | {"files": [kept, whole], "download": download})


@pytest.fixture(autouse=True)
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty cache, and no data folder."""
    monkeypatch.setenv("CYPHER_CACHE", str(tmp_path / "cache"))
    for name in ("CYPHER_DATA", "CYPHER_OFFLINE", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("zipped", [False, True], ids=["plain", "gzipped"])
@pytest.mark.parametrize("where", ["CYPHER_DATA", "cache"])
def test_a_copy_is_found_plain_or_gzipped_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, zipped: bool, where: str
) -> None:
    folder = tmp_path / "cache" / "data" if where == "cache" else tmp_path / "mine"
    if where == "CYPHER_DATA":
        monkeypatch.setenv("CYPHER_DATA", str(folder))
    (folder / "small").mkdir(parents=True)
    for name, content in (("kept.json", KEPT), ("all.json", SOURCE)):
        path = folder / "small" / (name + ".gz" * zipped)
        path.write_bytes(gzip.compress(content, compresslevel=1) if zipped else content)
    assert locate_entry(an_entry(), offline=True) == folder / "small"
    one = an_entry().model_copy(update={"files": an_entry().files[:1]})
    assert locate_entry(one, offline=True).name == "kept.json" + ".gz" * zipped


@pytest.mark.parametrize("content", [b"{}", gzip.compress(KEPT)[:20], b""], ids=["other", "half a gzip", "empty"])
def test_a_wrong_copy_in_the_data_folder_is_named_and_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    monkeypatch.setenv("CYPHER_DATA", str(tmp_path))
    path = tmp_path / "small" / "kept.json.gz"
    path.parent.mkdir()
    path.write_bytes(content)
    with pytest.raises(DataError, match=rf"kept\.json\.gz has sha256 .*: needs {sum_of(KEPT)[:12]}… \(\d+ bytes"):
        present(an_entry())
    assert path.read_bytes() == content


def test_evaluation_sets_are_refused_for_training() -> None:
    for name in ("squad/squad2_dev_open", "cranfield"):
        with pytest.raises(DataError, match=f"{name} is kept for evaluation"):
            locate(name, training=True)
    assert [name for name, entry in data_sets().items() if entry.trainable] == [
        "squadshifts/new_wiki",
        "squadshifts/amazon",
        "squadshifts/reddit",
        "banking77/train",
        "wikitext2/valid",
        "tinyshakespeare",
    ]


@pytest.mark.real_data
@pytest.mark.parametrize("zipped", [False, True])
def test_a_copy_of_a_set_kept_for_evaluation_is_refused_by_its_content(
    real_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, zipped: bool
) -> None:
    monkeypatch.setenv("CYPHER_DATA", str(real_data))
    content = locate("squad/squad2_dev_open", offline=True).read_bytes()
    content = gzip.decompress(content) if content.startswith(b"\x1f\x8b") else content
    copy = tmp_path / ("mine.json.gz" if zipped else "mine.json")
    copy.write_bytes(gzip.compress(content, compresslevel=1) if zipped else content)
    assert locate(copy) == copy
    with pytest.raises(DataError, match=r"mine.json.* is squad/squad2_dev_open, which is kept for evaluation"):
        locate(copy, training=True)


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="no file here that even root cannot read")
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CYPHER_DATA", str(tmp_path))
    (tmp_path / "small").mkdir()
    (tmp_path / "small" / "kept.json").symlink_to("/proc/self/mem")
    with pytest.raises(DataError, match=r"small/kept.json cannot be read \(.*\); mend its permissions"):
        present(an_entry())


def test_a_path_of_ones_own_is_taken_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "mine.json").write_text("{}")
    assert locate(tmp_path / "mine.json", training=True) == tmp_path / "mine.json"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "squadshifts/newwiki",
            r"\(did you mean 'squadshifts/new_wiki'\?\): needs an existing file or a name",
        ),
        ("nothing.json", "data set 'nothing.json': needs an existing file"),
        (
            "cranfield",
            "network is off; run `cypher data fetch cranfield` once .*cran.all.1400.xml by CYPHER_DATA",
        ),
    ],
)
def test_what_cannot_be_found_offline_is_one_line(name: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        locate(name, offline=True)


@pytest.mark.parametrize(
    "change",
    [
        {"download": "http://example.org/{path}"},
        {"revision": "main"},
        {"files": [{"path": "../x", "source_path": "x", "size": 1, "sha256": "0" * 64}]},
        {"files": [{"path": "x", "source_path": "x", "size": 1, "sha256": "0" * 64, "articles": ["a"]}]},
    ],
)
def test_a_row_that_is_not_pinned_or_safe_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        DataEntry.model_validate(an_entry().model_dump() | change)


@pytest.fixture
def source(tmp_path: Path) -> Iterator[tuple[str, list[str], Path]]:
    """A source repository over https: its address, what was asked, and the certificate to trust."""
    certificate = tmp_path / "certificate.pem"
    _write_certificate(certificate)
    asked: list[str] = []

    class Source(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            begin = int((self.headers["Range"] or "bytes=0-")[len("bytes=") : -1])
            asked.append(self.path + f" from {begin}" * bool(begin))
            content = (SOURCE if self.path.endswith("/all.json") else b"a proxy's page")[begin:]
            self.send_response(206 if begin else 200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content[:20] if "/cut/" in self.path and not begin else content)

        def log_message(self, *arguments: object) -> None:
            """Say nothing."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Source)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"https://localhost:{server.server_port}/{{repository}}/{{revision}}", asked, certificate
    server.shutdown()
    thread.join()
    server.server_close()


def _write_certificate(path: Path) -> None:
    x509 = pytest.importorskip("cryptography.x509", reason="the certificate of the test's server needs cryptography")
    import datetime

    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.timezone.utc)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(secret + certificate.public_bytes(serialization.Encoding.PEM))


LOCATE = """
import sys
from cypher.data.catalogue import DataEntry
from cypher.data.fetch import locate_entry
from cypher.errors import CypherError
try:
    tell = lambda *step: print(*step, file=sys.stderr)
    print(locate_entry(DataEntry.model_validate_json(sys.argv[1]), progress=tell))
except CypherError as error:
    print("error", error)
"""


def run(entry: DataEntry, certificate: Path) -> subprocess.Popen[str]:
    """In a process of its own, since what is trusted is read when the process starts."""
    environment = os.environ | {"SSL_CERT_FILE": str(certificate), "NO_PROXY": "localhost"}
    return subprocess.Popen(
        [sys.executable, "-c", LOCATE, entry.model_dump_json()],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )


def test_two_processes_download_once_and_take_the_articles(source: tuple[str, list[str], Path], tmp_path: Path) -> None:
    address, asked, certificate = source
    entry = an_entry(address + "/{path}")
    printed = [process.communicate(timeout=60)[0] for process in [run(entry, certificate) for _ in range(2)]]
    folder = tmp_path / "cache" / "data" / "small"
    assert printed == [f"{folder}\n"] * 2
    assert (folder / "kept.json").read_bytes() == KEPT
    assert (folder / "all.json").read_bytes() == SOURCE
    assert asked == [f"/{entry.repository}/{entry.revision}/all.json"] * len(entry.files)
    assert locate_entry(entry, offline=True) == folder


def test_a_download_that_was_cut_off_goes_on_and_is_told(source: tuple[str, list[str], Path], tmp_path: Path) -> None:
    address, asked, certificate = source
    entry = an_entry(address + "/cut/{path}")
    entry = entry.model_copy(update={"files": entry.files[1:]})
    printed, _ = run(entry, certificate).communicate(timeout=60)
    assert re.match(rf"error small \(all.json\): .* ended after 20 of {len(SOURCE)} bytes; run it again", printed), (
        printed
    )
    printed, told = run(entry, certificate).communicate(timeout=60)
    place = tmp_path / "cache" / "data" / "small" / "all.json"
    assert printed == f"{place}\n"
    assert place.read_bytes() == SOURCE
    assert [path.partition(" from ")[2] for path in asked] == ["", "20"]
    assert told.splitlines()[-1] == f"small (all.json) {len(SOURCE)} {len(SOURCE)}"
    assert not list((tmp_path / "cache" / "data" / ".partial").iterdir())


@pytest.mark.parametrize(
    ("tail", "trusted", "message"),
    [
        ("/other", True, "gave 14 bytes of sha256 .*: needs .* a proxy may have answered"),
        (
            "/{path}",
            False,
            "small .kept.json. could not be downloaded from https://localhost:.*CERTIFICATE_VERIFY_FAILED",
        ),
    ],
    ids=["wrong sum", "unknown certificate"],
)
def test_a_wrong_answer_writes_nothing(
    source: tuple[str, list[str], Path], tmp_path: Path, tail: str, trusted: bool, message: str
) -> None:
    address, _, certificate = source
    (tmp_path / "none.pem").write_text("")
    printed = run(an_entry(address + tail), certificate if trusted else tmp_path / "none.pem").communicate()[0]
    assert re.match(f"error .*{message}", printed), printed
    assert not list((tmp_path / "cache").rglob("*.json*"))


def test_no_answer_is_one_line() -> None:
    with pytest.raises(
        DataError, match=r"small \(kept.json\) could not be downloaded from https://localhost:9/.*; check"
    ):
        locate_entry(an_entry())


@pytest.mark.real_data
@pytest.mark.parametrize("name", list(data_sets()))
def test_the_data_folder_is_what_the_catalogue_says(
    name: str, real_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CYPHER_DATA", str(real_data))
    assert locate(name, offline=True).is_relative_to(real_data)
