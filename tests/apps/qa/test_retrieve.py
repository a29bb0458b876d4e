"""Retrieval equals the formulas over every passage, with filters and without, and keeps offsets exact."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
from store_parts import WORDS, open_store, sentences, tiny_embedder

from cypher.apps.qa.index import index_documents, index_paths, whole_document
from cypher.apps.qa.passage_table import searched_text
from cypher.apps.qa.retrieve import DEPTH, Retriever
from cypher.data.fetch import locate
from cypher.data.readers import read_squad
from cypher.documents import Document, Filter, Passage, parse_filter, split_passages
from cypher.errors import ConfigError, CypherError, DataError
from cypher.tasks.embed import Embedder


@pytest.fixture(scope="module")
def embedder(tmp_path_factory: pytest.TempPathFactory) -> Embedder:
    return tiny_embedder(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def documents() -> list[Document]:
    draw = random.Random(2)
    return [
        Document(
            text=sentences(draw, draw.randint(2, 12)),
            meta={
                "path": f"folder/it's {number}.txt",
                "format": draw.choice(["pdf", "text"]),
                "year": draw.randint(2010, 2020),
                "title": draw.choice(WORDS),
            },
            pages=(0, 40) if number % 2 else (),
        )
        for number in range(60)
    ]


@pytest.fixture(scope="module")
def retriever(tmp_path_factory: pytest.TempPathFactory, embedder: Embedder, documents: list[Document]) -> Retriever:
    store = open_store(tmp_path_factory.mktemp("store"), embedder)
    assert index_documents(store, documents, embedder).added == 60
    return Retriever(store, embedder)


QUERIES = ["copper bridge over the river", "Zebras!", "thunder", "unknown words only", "apple AND (title:stone"]
FILTERS = [
    None,
    'format == "pdf"',
    "year >= 2018 and not title in ['apple', 'river']",
    'path == "folder/it\'s 3.txt"',
    'format == "none"',
    "missing == null",
]


def reference(
    retriever: Retriever, documents: list[Document], query: str, where: Filter | None, top_k: int
) -> list[tuple[Passage, float]]:
    """The same formulas over all passages; BM25 alone is the index's own."""
    allowed = [document for document in documents if where is None or where.matches(document.meta)]
    passages = [passage for document in allowed for passage in split_passages(document, words=20, overlap_words=5)]
    if not passages:
        return []
    names = [(passage.document_id, passage.index) for passage in passages]
    vectors = retriever.embedder.embed([searched_text(passage) for passage in passages])
    vector = retriever.embedder.embed([query])[0]
    hits = retriever.store.full_text(query, limit=10_000).to_pylist()
    hits = [hit for hit in hits if (hit["document_id"], hit["passage_index"]) in set(names)][:DEPTH]
    bm25 = np.zeros(len(passages))
    for hit in hits:
        bm25[names.index((hit["document_id"], hit["passage_index"]))] = hit["_score"]
    chosen = sorted({*np.argsort(-(vectors @ vector))[:DEPTH].tolist(), *np.flatnonzero(bm25).tolist()})

    def fuse(towards: np.ndarray) -> np.ndarray:
        def scale(x: np.ndarray) -> np.ndarray:
            return (x - x.min()) / (x.max() - x.min()) if x.max() > x.min() else (x > 0) * 1.0

        return 0.6 * scale(vectors[chosen] @ towards) + 0.4 * scale(bm25[chosen])

    centre = vectors[chosen][np.argsort(-fuse(vector))[:3]].mean(0)
    moved = vector + 0.3 * centre / np.linalg.norm(centre)
    scores = fuse(moved / np.linalg.norm(moved))
    return [(passages[chosen[i]], scores[i]) for i in np.argsort(-scores)[:top_k]]


@pytest.mark.parametrize("condition", FILTERS)
@pytest.mark.parametrize("query", QUERIES)
def test_equals_the_formulas(
    retriever: Retriever, documents: list[Document], query: str, condition: str | None
) -> None:
    where = parse_filter(condition) if condition else None
    found = retriever.retrieve(query, top_k=7, where=where)
    expected = reference(retriever, documents, query, where, 7)
    assert [(hit.document_id, hit.start) for hit in found] == [(p.document_id, p.start) for p, _ in expected]
    assert [hit.score for hit in found] == pytest.approx([score for _, score in expected], abs=1e-4)
    assert all(0 <= hit.score <= 1 for hit in found)


@pytest.mark.parametrize("condition", FILTERS[1:])
def test_filters_equal_brute_force(retriever: Retriever, documents: list[Document], condition: str) -> None:
    where = parse_filter(condition)
    expected = {
        f"{document.id}-{passage.index}"
        for document in documents
        if where.matches(document.meta)
        for passage in split_passages(document, words=20, overlap_words=5)
    }
    found = retriever.retrieve("copper bridge", top_k=1000, where=where)
    assert len(found) == len(expected)
    assert {hit.passage_id for hit in found} == expected


def test_places_in_the_document_are_exact(retriever: Retriever, documents: list[Document]) -> None:
    by_id = {document.id: document for document in documents}
    found = retriever.retrieve("silver window", top_k=1000)
    assert len({hit.document_id for hit in found}) == len(documents)
    for hit in found:
        document = by_id[hit.document_id]
        assert hit.text == document.text[hit.start : hit.end]
        assert hit.page == document.page_at(hit.start)
        assert hit.meta == document.meta
        assert (hit.path, hit.heading) == (document.meta["path"], document.meta["title"])


def test_many_queries_equal_one_by_one(retriever: Retriever) -> None:
    together = retriever.retrieve_many(QUERIES, top_k=5)
    for query, found in zip(QUERIES, together, strict=True):
        alone = retriever.retrieve(query, top_k=5)
        assert [hit.passage_id for hit in found] == [hit.passage_id for hit in alone]
        assert [hit.cosine for hit in found] == pytest.approx([hit.cosine for hit in alone], abs=1e-5)
    assert retriever.retrieve_many([]) == []


@pytest.mark.parametrize(
    ("query", "top_k", "message"), [("  ", 10, "query 1 of 1 is empty"), ("apple", 0, "top_k = 0")]
)
def test_wrong_calls(retriever: Retriever, query: str, top_k: int, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        retriever.retrieve(query, top_k=top_k)


def test_odd_queries_do_not_fail(retriever: Retriever) -> None:
    for query in ("the", "?!", "日本語", "a\0b", "'; DROP TABLE", "x" * 10_000, "AND OR NOT", '"quoted'):
        assert len(retriever.retrieve(query, top_k=3)) == 3


def test_headings_are_searched(tmp_path: Path, embedder: Embedder) -> None:
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "one.md").write_text("Walnut\n======\n\nApple river.\n")
    (tmp_path / "files" / "two.md").write_text(f"# {'Violet ' * 60}\n\nStone cloud.\n")
    store = open_store(tmp_path / "store", embedder, words=100)
    index_paths(store, tmp_path / "files", embedder)
    one, two = sorted(Retriever(store, embedder).retrieve("walnut"), key=lambda hit: hit.path)
    assert (one.heading, two.heading) == ("Walnut", " ".join(["Violet"] * 60))
    assert one.bm25 > two.bm25 == 0
    assert two.text == (tmp_path / "files" / "two.md").read_text()[two.start : two.end]


def minilm() -> Embedder:
    from cypher.models.load import load_model

    try:
        return Embedder(load_model("minilm", offline=True), precision="fp32")
    except CypherError as error:
        pytest.skip(f"no MiniLM on this machine: {error}")


@pytest.mark.real_weights
def test_finds_by_meaning_and_by_name(tmp_path: Path) -> None:
    embedder = minilm()
    texts = {
        "fair": "The yearly market of the village opens on the first Sunday of June.",
        "XK-4471": "Replace the filter XK-4471 every six months.",
        "dog": "A puppy needs to be fed four times a day.",
        "bank": "Interest is paid into your account at the end of each quarter.",
    }
    store = open_store(tmp_path / "store", embedder, words=50, overlap_words=0)
    index_documents(store, [Document(text=text, meta={"name": name}) for name, text in texts.items()], embedder)
    retriever = Retriever(store, embedder)
    asked = {"How often do young dogs eat?": "dog", "XK-4471": "XK-4471", "When is the village fair?": "fair"}
    for query, name in asked.items():
        assert retriever.retrieve(query, top_k=1)[0].meta["name"] == name


@pytest.mark.slow
@pytest.mark.real_data
@pytest.mark.real_weights
def test_finds_the_paragraphs_of_new_wiki(tmp_path: Path) -> None:
    """A part of benchmarks/retrieval.py, which has all of it: the first 150 paragraphs, one question each."""
    embedder = minilm()
    try:
        paragraphs = read_squad(locate("squadshifts/new_wiki", offline=True))[:150]
    except DataError as error:
        pytest.skip(f"no New-Wiki on this machine: {error}")
    documents = [
        Document(text=row.context, meta={"title": row.title.replace("_", " "), "number": number})
        for number, row in enumerate(paragraphs)
    ]
    store = open_store(tmp_path / "store", embedder, words=0, overlap_words=0)
    index_documents(store, documents, embedder, split=whole_document)
    asked = [(row.questions[0].question, number) for number, row in enumerate(paragraphs) if row.questions]
    found = Retriever(store, embedder).retrieve_many([question for question, _ in asked])
    ranks = [
        [hit.meta["number"] for hit in hits].index(number) if number in {hit.meta["number"] for hit in hits} else 10
        for hits, (_, number) in zip(found, asked, strict=True)
    ]
    assert np.mean(np.array(ranks) < 1) >= 0.8
    assert np.mean(np.array(ranks) < 10) >= 0.98
