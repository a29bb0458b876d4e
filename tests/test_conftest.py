"""The parts that other tests stand on: the tiny model, and that a test of real data cannot skip in silence."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from cypher.hub import cache_folder
from cypher.models.load import load_model

MARKED = """
import pytest

@pytest.mark.real_data
def test_of_real_data(data_folder):
    if "skips" in str(data_folder):
        pytest.skip("a file is missing")

@pytest.mark.real_weights
def test_of_real_weights(minilm_folder):
    assert (minilm_folder / "config.json").is_file()
"""


def test_the_tiny_model_loads_here_and_in_transformers_alike(make_tiny_bert: Callable[..., Path]) -> None:
    transformers = pytest.importorskip("transformers")
    folder = make_tiny_bert(words=("river",), num_hidden_layers=1)
    loaded = load_model(str(folder))
    encoded = loaded.tokenizer.encode("The river's end", "ok")
    assert encoded.tokens[:3] == ["[CLS]", "the", "river"]
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    assert tokenizer("The river's end", "ok")["input_ids"] == encoded.ids
    model = transformers.AutoModel.from_pretrained(folder)
    token_ids, segment_ids = torch.tensor([encoded.ids]), torch.tensor([encoded.type_ids])
    from cypher.data.batch import Inputs

    inputs = Inputs(token_ids=token_ids, attention_mask=token_ids > 0, segment_ids=segment_ids)
    with torch.inference_mode():
        theirs = model(token_ids, token_type_ids=segment_ids).last_hidden_state
        torch.testing.assert_close(loaded.model(inputs).scatter(), theirs, atol=1e-5, rtol=1e-5)


def test_the_persons_cache_is_out_of_reach() -> None:
    assert cache_folder() != Path.home() / ".cache" / "cypher"
    assert os.environ["CYPHER_OFFLINE"] == "1"


@pytest.mark.parametrize(
    ("environment", "outcomes"),
    [
        ({}, "2 skipped"),
        ({"CYPHER_REQUIRE": "1"}, "2 errors"),
        ({"CYPHER_DATA": "there"}, "1 passed, 1 skipped"),
        ({"CYPHER_DATA": "skips"}, "1 failed, 1 skipped"),
        ({"CYPHER_DATA": "nowhere"}, "1 skipped, 1 error"),
    ],
)
def test_absent_parts_skip_and_required_ones_fail(tmp_path: Path, environment: dict[str, str], outcomes: str) -> None:
    for folder in ("there", "skips"):
        (tmp_path / folder).mkdir()
    assert outcomes_of(MARKED, tmp_path, environment).startswith(outcomes)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root is asked to mount a disk")
@pytest.mark.parametrize(("environment", "outcomes"), [({}, "1 skipped"), ({"CYPHER_REQUIRE": "1"}, "1 error")])
def test_a_disk_that_root_cannot_mount_is_demanded_in_ci(
    tmp_path: Path, environment: dict[str, str], outcomes: str
) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "mount").write_text("#!/bin/sh\necho not permitted >&2\nexit 32\n")
    (tmp_path / "bin" / "mount").chmod(0o755)
    path = f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}"
    text = "def test_of_a_small_disk(small_disk):\n    assert small_disk.is_dir()\n"
    assert outcomes_of(text, tmp_path, {**environment, "PATH": path}).startswith(outcomes)


def outcomes_of(text: str, folder: Path, environment: dict[str, str]) -> str:
    """The last line of pytest over a file of tests beside a copy of our conftest."""
    tests = Path(__file__).parent
    (folder / "conftest.py").write_text((tests / "conftest.py").read_text("utf-8"), encoding="utf-8")
    (folder / "test_marked.py").write_text(text, encoding="utf-8")
    settings = f"--config-file={tests.parent / 'pyproject.toml'}"
    others = {name: value for name, value in os.environ.items() if name not in {"CYPHER_DATA", "CYPHER_REQUIRE"}}
    ended = subprocess.run(
        [sys.executable, "-m", "pytest", settings, "-p", "no:cacheprovider", "--rootdir=.", "test_marked.py"],
        cwd=folder,
        env={**others, **environment, "CYPHER_CACHE": str(folder / "empty"), "CYPHER_OFFLINE": "1"},
        capture_output=True,
        text=True,
    )
    return ended.stdout.splitlines()[-1]
