from __future__ import annotations

import pytest
from pydantic import ValidationError

from cypher.hub.catalogue import CheckedFile, ModelEntry, models

SHA = "0" * 64


def test_the_embedded_models_are_listed() -> None:
    minilm, smollm2 = models()["minilm"], models()["smollm2"]
    assert (minilm.architecture, minilm.format, minilm.files[0].sha256[:8]) == (
        "bert",
        "safetensors",
        "53aa5117",
    )
    assert (smollm2.architecture, smollm2.format, smollm2.files[0].sha256[:8]) == (
        "llama",
        "gguf",
        "b179c952",
    )
    assert {"config.json", "tokenizer.json", "vocab.txt"} <= {file.path for file in minilm.files}
    assert [source.kind for source in minilm.sources] == ["wheel", "hub"]


@pytest.mark.parametrize("path", ["", "/etc/passwd", "../up", "a/../../up", "a\\..\\b", "C:/x"])
def test_a_file_cannot_leave_its_folder(path: str) -> None:
    with pytest.raises(ValidationError, match="not a relative path"):
        CheckedFile(path=path, size=1, sha256=SHA)


@pytest.mark.parametrize(
    "change",
    [
        {"sources": []},
        {"sources": [{"kind": "hub", "repository": "a/b", "revision": "main"}]},
        {"sources": [{"kind": "wheel", "package": "--index-url", "version": "1", "folder": "a"}]},
        {"sources": [{"kind": "wheel", "package": "a", "version": "1 --pre", "folder": "a"}]},
        {"files": [{"path": "a", "size": 1, "sha256": "ABC"}]},
        {"colour": "red"},
    ],
)
def test_a_row_that_is_not_pinned_or_safe_is_refused(change: dict[str, object]) -> None:
    row = models()["minilm"].model_dump()
    with pytest.raises(ValidationError):
        ModelEntry.model_validate(row | change)
    assert ModelEntry.model_validate(row) == models()["minilm"]


def test_the_cached_folder_changes_with_any_file() -> None:
    entry = models()["minilm"]
    other = entry.model_copy(update={"files": entry.files[1:]})
    assert entry.digest != other.digest
