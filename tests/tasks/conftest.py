"""A table of word vectors small enough to see what is near what."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel

from cypher.tasks.similar_words import SimilarWords


def words_at(degrees: Mapping[str, float], *, marker: str = "") -> SimilarWords:
    """Words on a circle, with their opposites, which keep the mean at zero: cosines are those of the angles."""
    places = {marker + word: angle for word, angle in degrees.items()}
    # Their opposites, as words with letters of their own: "qaaa", "qbbb", ….
    places |= {f"{marker}q{chr(ord('a') + number) * 3}": angle + 180 for number, angle in enumerate(degrees.values())}
    vocabulary = {"[UNK]": 0, **{token: number for number, token in enumerate(places, start=1)}}
    vectors = [[0.0, 0.0], *[[math.cos(math.radians(a)), math.sin(math.radians(a))] for a in places.values()]]
    return SimilarWords(torch.tensor(vectors), Tokenizer(WordLevel(vocabulary, unk_token="[UNK]")))


@pytest.fixture
def make_similar_words() -> Callable[..., SimilarWords]:
    return words_at


@pytest.fixture
def similar_words() -> SimilarWords:
    """ "bridge" and "castle", "finished" and "painted", "quiet" and "noisy" are alike."""
    return words_at(
        {"bridge": 0, "castle": 66, "finished": 20, "painted": 88, "quiet": 30, "noisy": 97, "boat": 5, "road": 72}
    )
