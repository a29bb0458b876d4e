from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from cypher.data.batch import pad_inputs
from cypher.data.fetch import locate
from cypher.data.readers import read_squad
from cypher.errors import ConfigError
from cypher.layers.kernels import int8_is_exact
from cypher.models.load import LoadedModel, load_model
from cypher.tasks import embed
from cypher.tasks.batch_workers import each_batch
from cypher.tasks.embed import Embedder

TEXTS = [
    "the river",
    "a",
    "",
    "who was in the river and by the river",
    "what " * 40,
    "in the of to at by",
    "where is the river? it is at the a",
] * 3
needs_int8 = pytest.mark.skipif(not int8_is_exact(), reason="this machine overflows in 8-bit products")
PRECISIONS = [("fp32", 0.9999), ("bf16", 0.999), pytest.param("int8", 0.99, marks=needs_int8)]


def one_by_one(loaded: LoadedModel, texts: list[str], max_tokens: int = 256) -> NDArray[np.float32]:
    """The definition: each text alone, never padded, in plain fp32."""
    rows = []
    with torch.inference_mode():
        for text in texts:
            ids = loaded.tokenizer.encode(text, add_special_tokens=False).ids[: max_tokens - 2]
            ids = [loaded.special.cls_id, *ids, loaded.special.sep_id]
            mean = loaded.model(pad_inputs([ids], pad_id=loaded.special.pad_id)).hidden[0].mean(0)
            rows.append((mean / mean.norm()).numpy())
    return np.stack(rows)


@pytest.fixture
def threads() -> Any:
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.mark.parametrize("number", [1, 2, 3])
@pytest.mark.parametrize(("precision", "least"), PRECISIONS)
def test_vectors_are_those_of_each_text_alone(
    make_tiny_bert: Any, threads: Any, precision: Any, least: float, number: int
) -> None:
    folder = make_tiny_bert(words=("river",))
    expected = one_by_one(load_model(str(folder)), TEXTS)
    threads(number)
    vectors = Embedder(load_model(str(folder)), precision=precision).embed(TEXTS)
    assert vectors.shape == (len(TEXTS), 32)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert (vectors * expected).sum(1).min() > least


def test_the_size_of_batches_changes_nothing(tiny_bert: Path, threads: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    threads(2)
    embedder = Embedder(load_model(str(tiny_bert)), precision="fp32")
    expected = embedder.embed(TEXTS)
    for tokens in (1, 17, 4096):
        monkeypatch.setattr(embed, "BATCH_TOKENS", {"fp32": tokens})
        np.testing.assert_allclose(embedder.embed(TEXTS), expected, atol=1e-5)


def test_no_texts_give_no_vectors(tiny_bert: Path) -> None:
    assert Embedder(load_model(str(tiny_bert)), precision="fp32").embed([]).shape == (0, 32)


def test_long_texts_are_cut(tiny_bert: Path) -> None:
    embedder = Embedder(load_model(str(tiny_bert)), precision="fp32", max_tokens=10)
    cut, whole = embedder.embed(["the " * 30, "the " * 8])
    np.testing.assert_allclose(cut, whole, atol=1e-5)


def test_a_precision_without_kernels_is_refused(tiny_bert: Path) -> None:
    with pytest.raises(ConfigError, match="'int4'"):
        Embedder(load_model(str(tiny_bert)), precision="int4")  # type: ignore[arg-type]


def test_batches_on_threads_leave_the_callers_threads_alone(threads: Any) -> None:
    threads(3)
    inside: list[tuple[int, bool]] = []
    both = threading.Barrier(2, timeout=20)

    def work(batch: int) -> None:
        both.wait()  # only passes if two batches are under way at once
        inside.append((torch.get_num_threads(), torch.is_inference_mode_enabled()))

    each_batch(work, [1, 2])
    assert inside == [(1, True)] * 2
    assert torch.get_num_threads() == 3
    seen: list[int] = []
    later = threading.Thread(target=lambda: seen.append(torch.get_num_threads()))
    later.start()
    later.join()
    assert seen == [3]


@pytest.mark.parametrize("number", [1, 2])
def test_an_error_in_a_batch_arrives_and_drops_the_rest(threads: Any, number: int) -> None:
    threads(number)
    done: list[int] = []

    def work(batch: int) -> None:
        if batch == 0:
            raise ConfigError("batch 0")
        time.sleep(0.001)  # a busy machine may look at the error late
        done.append(batch)

    with pytest.raises(ConfigError, match="batch 0"):
        each_batch(work, range(2000))
    assert len(done) < 2000 - 1
    each_batch(done.append, [7, 7])  # the threads live on
    assert done[-2:] == [7, 7]


@pytest.mark.real_weights
@pytest.mark.real_data
@pytest.mark.parametrize(("precision", "least"), PRECISIONS)
def test_real_passages_keep_their_direction(precision: Any, least: float, minilm_folder: Path) -> None:
    texts = [paragraph.context for paragraph in read_squad(locate("squadshifts/new_wiki"))][::60]
    expected = one_by_one(load_model(str(minilm_folder)), texts)
    vectors = Embedder(load_model(str(minilm_folder)), precision=precision).embed(texts)
    assert (vectors * expected).sum(1).min() >= least
