"""What is near a word: not itself, not its inflections, no synonym, nothing unrelated."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from cypher.models.load import load_model
from cypher.tasks.similar_words import SimilarWords

# Degrees from "dutch": cosines 0.98, 0.56 (both too near), 0.42, 0.36, 0.17 (too far).
CIRCLE = {"dutch": 0, "dutchman": 68, "holland": 10, "flemish": 56, "danish": 65, "swedish": 69, "table": 80}


@pytest.mark.parametrize("marker", ["", "▁", "Ġ"])
def test_near_words_are_neither_the_same_nor_unrelated(
    make_similar_words: Callable[..., SimilarWords], marker: str
) -> None:
    words = make_similar_words(CIRCLE, marker=marker)
    assert words.near("dutch") == ["danish", "swedish"]
    assert words.near("dutch") == ["danish", "swedish"]  # from memory
    assert words.cosine("dutch", "danish") == pytest.approx(0.4226, abs=1e-4)
    assert words.near("unheard") == []
    assert words.cosine("unheard", "dutch") == words.cosine("dutch", "unheard") == 0


def test_a_vocabulary_without_words_has_no_neighbours(make_similar_words: Callable[..., SimilarWords]) -> None:
    words = make_similar_words({})
    assert words.near("dutch") == []


@pytest.mark.real_weights
def test_the_table_of_minilm(minilm_folder: Path) -> None:
    loaded = load_model(str(minilm_folder))
    words = SimilarWords(loaded.model.token_vectors(), loaded.tokenizer)
    assert {"danish", "swedish", "german"} <= set(words.near("dutch")[:8])
    assert {"queen", "kings", "kingdom"}.isdisjoint(words.near("king"))  # too near, or a form of the word
    assert {"princess", "emperor"} <= set(words.near("king"))
    assert torch.equal(loaded.model.token_vectors(), loaded.model.embeddings.token.weight)
