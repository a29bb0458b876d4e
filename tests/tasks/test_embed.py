from __future__ import annotations

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


@pytest.mark.real_weights
@pytest.mark.real_data
@pytest.mark.parametrize(("precision", "least"), PRECISIONS)
def test_real_passages_keep_their_direction(precision: Any, least: float, minilm_folder: Path) -> None:
    texts = [paragraph.context for paragraph in read_squad(locate("squadshifts/new_wiki"))][::60]
    expected = one_by_one(load_model(str(minilm_folder)), texts)
    vectors = Embedder(load_model(str(minilm_folder)), precision=precision).embed(texts)
    assert (vectors * expected).sum(1).min() >= least
