"""Hybrid retrieval: passages that share words with the query and passages that share its meaning, in one ranking.

The candidates are the best of the full-text index and the best by vectors; every candidate has both scores, its
cosine computed exactly wherever it came from and BM25 0 when it is outside the full-text list. They are fused,
the query's vector is moved towards the best three, and the candidates are fused again: see
`cypher.apps.qa.fusion`, which gives formulas and sources.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from cypher.apps.qa.file_sources import AnyPath, is_below
from cypher.apps.qa.fusion import Floats, descending, fused, with_feedback
from cypher.apps.qa.passage_table import one_of, own_text, vectors_of
from cypher.apps.qa.store import PassageStore
from cypher.documents import Filter, MetaValue
from cypher.errors import ConfigError
from cypher.tasks.embed import Embedder

if TYPE_CHECKING:
    import pyarrow as pa

DEPTH = 100
"""Candidates from each list; 200 and 500 change no figure by more than 0.002."""


@dataclass(frozen=True, kw_only=True)
class RetrievedPassage:
    """A passage found for a query.

    Args:
        passage_id: ``DOCUMENT_ID-INDEX``.
        document_id: ``Document.id``.
        path: Of the document's file, as it was given when it was indexed; empty without a file.
        meta: The document's.
        text: ``document.text[start:end]``.
        start: First character in the document.
        end: One past the last.
        page: From 1; ``None`` when the document has no pages.
        heading: Nearest heading or title; empty when there is none.
        score: Fused, in [0, 1]: an order among the passages of one query, no probability.
        bm25: Of the words shared with the query; 0 outside the best of the full-text index.
        cosine: Between the vectors of the query and the passage.
    """

    passage_id: str
    document_id: str
    path: str
    meta: dict[str, MetaValue]
    text: str
    start: int
    end: int
    page: int | None
    heading: str
    score: float
    bm25: float
    cosine: float


class Retriever:
    """Finds passages in a store.

    Args:
        store: Made with this embedder.
        embedder: Embeds the queries.

    Example:
        >>> Retriever(store, embedder).retrieve("When is the fair?", top_k=1)[0].text  # doctest: +SKIP
        'The fair is in June.'
    """

    def __init__(self, store: PassageStore, embedder: Embedder) -> None:
        assert embedder.width == store.settings.width, "the store was made with another embedder"
        self.store = store
        self.embedder = embedder

    def retrieve(
        self, query: str, *, top_k: int = 10, where: Filter | None = None, below: Sequence[AnyPath] = ()
    ) -> list[RetrievedPassage]:
        """The best passages for a query, best first.

        Args:
            query: A question or key words.
            top_k: Most passages to give.
            where: Only passages of documents whose meta matches; the others do not count towards ``top_k``.
            below: Only passages of these files and of files in these folders; none = all of the store.

        Raises:
            ConfigError: An empty query, or ``top_k`` below 1.
            StoreError: The store is damaged.
        """
        return self.retrieve_many([query], top_k=top_k, where=where, below=below)[0]

    def retrieve_many(
        self, queries: Sequence[str], *, top_k: int = 10, where: Filter | None = None, below: Sequence[AnyPath] = ()
    ) -> list[list[RetrievedPassage]]:
        """As `retrieve`, for many queries embedded at once; one list for each."""
        if top_k < 1:
            raise ConfigError(f"top_k = {top_k}", needed="at least 1 passage")
        for number, query in enumerate(queries, start=1):
            if not query.strip():
                raise ConfigError(f"query {number} of {len(queries)} is empty", needed="a question or key words")
        condition = self._condition(where, below)
        if condition == _NOTHING:
            return [[] for _ in queries]
        vectors = self.embedder.embed(queries)
        return [self._search(query, vector, top_k, condition) for query, vector in zip(queries, vectors, strict=True)]

    def _condition(self, where: Filter | None, below: Sequence[AnyPath]) -> str | None:
        """Both conditions as SQL over document ids: whichever list is shorter, of those that match or do not."""
        if where is None and not below:
            return None
        matching: list[str] = []
        others: list[str] = []
        for document in self.store.documents():
            is_match = where is None or where.matches(document.meta)
            is_match = is_match and (not below or is_below(document.source, below))
            (matching if is_match else others).append(document.document_id)
        if not matching:
            return _NOTHING
        if not others:
            return None
        few = one_of("document_id", matching if len(matching) <= len(others) else others)
        return few if len(matching) <= len(others) else f"NOT ({few})"

    def _search(self, query: str, vector: Floats, top_k: int, condition: str | None) -> list[RetrievedPassage]:
        depth = max(DEPTH, top_k)
        by_words = self.store.full_text(query, limit=depth, where=condition)
        by_meaning = self.store.nearest(vector, limit=depth, where=condition)
        rows, bm25 = _union(by_words, by_meaning)
        if not len(rows):
            return []
        vectors = vectors_of(rows, len(vector))
        cosines = vectors @ vector
        moved = with_feedback(vector, vectors, fused(cosines, bm25))
        scores = fused(vectors @ moved, bm25)
        best = descending(scores)[:top_k]
        return [
            _passage(row, score=float(scores[i]), bm25=float(bm25[i]), cosine=float(cosines[i]))
            for i, row in zip(best, rows.drop_columns("vector").take(best).to_pylist(), strict=True)
        ]


_NOTHING = "false"


def _union(by_words: pa.Table, by_meaning: pa.Table) -> tuple[pa.Table, Floats]:
    """Every passage of both lists once, and its BM25."""
    import pyarrow as pa

    rows = pa.concat_tables([by_words.drop_columns("_score"), by_meaning.drop_columns("_distance")])
    bm25 = np.zeros(len(rows), dtype=np.float32)
    bm25[: len(by_words)] = by_words["_score"].to_numpy()
    names = zip(rows["document_id"].to_pylist(), rows["passage_index"].to_pylist(), strict=True)
    first: dict[tuple[str, int], int] = {}
    for place, name in enumerate(names):
        first.setdefault(name, place)
    kept = np.fromiter(first.values(), dtype=np.int64)
    return rows.take(kept), bm25[kept]


def _passage(row: dict[str, Any], *, score: float, bm25: float, cosine: float) -> RetrievedPassage:
    meta = json.loads(row["meta"])
    return RetrievedPassage(
        passage_id=f"{row['document_id']}-{row['passage_index']}",
        document_id=row["document_id"],
        path=str(meta.get("path") or ""),
        meta=meta,
        text=own_text(row["searched_text"], row["heading"]),
        start=row["start"],
        end=row["end"],
        page=row["page"],
        heading=row["heading"],
        score=score,
        bm25=bm25,
        cosine=cosine,
    )
