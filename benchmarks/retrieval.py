"""Recall of hybrid retrieval on SQuADShifts New-Wiki and nDCG@10 on Cranfield, as one JSON object.

Run: python benchmarks/retrieval.py [--store FOLDER]
Every paragraph (New-Wiki) and abstract (Cranfield) is one passage with its title as heading. New-Wiki: recall
over all 7,938 questions, each with one right paragraph of 1,581. Cranfield: nDCG@10 with the grades as gains,
mean over the 225 queries, as trec_eval computes it. The stores are kept when a folder is named.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from cypher.apps.qa.index import index_documents, whole_document
from cypher.apps.qa.metrics import ndcg_at
from cypher.apps.qa.retrieve import RetrievedPassage, Retriever
from cypher.apps.qa.store import PassageStore
from cypher.apps.qa.store_settings import embedder_identity
from cypher.data.fetch import locate
from cypher.data.readers import read_cranfield, read_squad
from cypher.documents import Document
from cypher.models.load import load_model
from cypher.tasks.embed import Embedder


def measure(
    folder: Path, name: str, documents: Sequence[Document], queries: Sequence[str], embedder: Embedder
) -> tuple[list[list[RetrievedPassage]], dict[str, Any]]:
    """Index the documents, ask every query; the rankings and the seconds."""
    store = PassageStore.open(
        folder / name,
        model=embedder_identity(embedder),
        width=embedder.width,
        words=0,
        overlap_words=0,
        create=True,
    )
    report = index_documents(store, documents, embedder, split=whole_document)
    retriever = Retriever(store, embedder)
    started = time.perf_counter()
    found = retriever.retrieve_many(queries, top_k=10)
    seconds = time.perf_counter() - started
    figures = {
        "passages": report.passages,
        "queries": len(queries),
        "megabytes": round(store.stats().bytes / 1e6, 2),
        "index_seconds": round(report.seconds, 1),
        "milliseconds_a_query": round(1000 * seconds / len(queries), 1),
    }
    return found, figures


def new_wiki(folder: Path, embedder: Embedder) -> dict[str, Any]:
    """Recall of the paragraph that a question was written for."""
    paragraphs = read_squad(locate("squadshifts/new_wiki"))
    documents = [
        Document(text=row.context, meta={"title": row.title.replace("_", " "), "number": number})
        for number, row in enumerate(paragraphs)
    ]
    asked = [(question.question, number) for number, row in enumerate(paragraphs) for question in row.questions]
    found, figures = measure(folder, "new_wiki", documents, [question for question, _ in asked], embedder)
    ranks = [
        next((rank for rank, passage in enumerate(passages) if passage.meta["number"] == number), 10)
        for passages, (_, number) in zip(found, asked, strict=True)
    ]
    figures["recall@1"] = round(sum(rank < 1 for rank in ranks) / len(ranks), 4)
    figures["recall@10"] = round(sum(rank < 10 for rank in ranks) / len(ranks), 4)
    return figures


def cranfield(folder: Path, embedder: Embedder) -> dict[str, Any]:
    """nDCG@10 over the judged queries."""
    collection = read_cranfield(locate("cranfield"))
    documents = [
        Document(text=row.text, meta={"title": " ".join(row.title.split()), "number": row.id})
        for row in collection.documents
    ]
    found, figures = measure(folder, "cranfield", documents, [query.text for query in collection.queries], embedder)
    scores = [
        ndcg_at([str(passage.meta["number"]) for passage in passages], collection.judgments[query.id], 10)
        for passages, query in zip(found, collection.queries, strict=True)
    ]
    figures["ndcg@10"] = round(sum(scores) / len(scores), 4)
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--store", type=Path, help="keep the stores in this folder")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="threads of torch")
    parser.add_argument("--precision", default="fp32", choices=["fp32", "bf16", "int8"])
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    embedder = Embedder(load_model("minilm"), max_tokens=256, precision=arguments.precision)
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.store or Path(temporary)
        figures = {
            "model": embedder_identity(embedder, name="minilm"),
            "precision": arguments.precision,
            "threads": arguments.threads,
            "new_wiki": new_wiki(folder, embedder),
            "cranfield": cranfield(folder, embedder),
        }
    print(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
