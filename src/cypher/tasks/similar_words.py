"""Words like a given word, by the input vectors of a pre-trained model: kinds of one thing, mostly.

In the table of a sentence encoder "latin" is near "greek" and "spanish", "king" near "prince", "largest" near
"smallest". Inflections of one word are nearest of all and are left out by their first letters; what is too near is a
synonym, what is too far is unrelated.
"""

from __future__ import annotations

import re

import torch.nn.functional as F
from tokenizers import Tokenizer
from torch import Tensor

# Cosines between centred vectors: read off MiniLM's table, where "author" and "writer" are at 0.48, "french" and
# "danish" at 0.38, and unrelated words below 0.2.
NEAREST = 0.47
FARTHEST = 0.27
# Words with so many first letters in common are taken for forms of one word.
STEM_LETTERS = 4
# Marks that vocabularies of sub-words put before a word's beginning.
_BEGINNINGS = ("▁", "Ġ")
_WORD = re.compile(r"[a-z]{3,}")


class SimilarWords:
    """Neighbours of words in a table of token vectors.

    Args:
        vectors: ``(vocabulary, width)``, the model's input embedding.
        tokenizer: Of the model; only words that are one token have a vector.

    Example:
        >>> from cypher.models.load import load_model
        >>> loaded = load_model("minilm")  # doctest: +SKIP
        >>> words = SimilarWords(loaded.model.token_vectors(), loaded.tokenizer)  # doctest: +SKIP
        >>> words.near("dutch")[:4]  # doctest: +SKIP
        ['belgian', 'swedish', 'danish', 'german']
    """

    def __init__(self, vectors: Tensor, tokenizer: Tokenizer) -> None:
        vocabulary = tokenizer.get_vocab(with_added_tokens=False)
        marked = any(token.startswith(_BEGINNINGS) for token in vocabulary)
        places: dict[str, int] = {}
        for token, place in vocabulary.items():
            word = token[1:] if token.startswith(_BEGINNINGS) else "" if marked else token
            if _WORD.fullmatch(word):
                places[word] = place
        self._words = sorted(places)
        self._row_of = {word: row for row, word in enumerate(self._words)}
        table = vectors.detach().float()[[places[word] for word in self._words]]
        self._table = F.normalize(table - table.mean(0), dim=1) if places else table
        self._near: dict[str, list[str]] = {}

    def near(self, word: str) -> list[str]:
        """Similar words with other first letters, nearest first; none for a word that has no vector of its own.

        Args:
            word: In lower case.
        """
        if word not in self._row_of:
            return []
        if word not in self._near:
            cosines = self._table @ self._table[self._row_of[word]]
            rows = ((cosines > FARTHEST) & (cosines < NEAREST)).nonzero().flatten()
            nearest_first = rows[cosines[rows].argsort(descending=True)].tolist()
            stem = word[:STEM_LETTERS]
            self._near[word] = [self._words[row] for row in nearest_first if not self._words[row].startswith(stem)]
        return self._near[word]

    def cosine(self, word: str, other: str) -> float:
        """How alike two words are, in [-1, 1]; 0 where one of them has no vector of its own."""
        if word not in self._row_of or other not in self._row_of:
            return 0.0
        return float(self._table[self._row_of[word]] @ self._table[self._row_of[other]])
