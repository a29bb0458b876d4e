"""The LanceDB table of a store: its columns, its full-text index, documents as rows."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cypher.documents import Document, Passage
from cypher.errors import StoreError

if TYPE_CHECKING:
    import pyarrow as pa

TABLE = "passages"
KEY = ["source", "passage_index"]
TEXT_INDEX = "searched_text_idx"

RESULT_COLUMNS = ["document_id", "passage_index", "start", "end", "page", "heading", "searched_text", "meta", "vector"]
"""What a search gives, beside its score."""

_SURROGATES = re.compile("[\ud800-\udfff]")
# Beyond this a heading would push its passage out of the embedder's sight.
_HEADING_CHARACTERS = 200


@dataclass(frozen=True, kw_only=True)
class EmbeddedDocument:
    """A document ready to be stored.

    Args:
        source: What it is known by in the store, such as the absolute path of its file.
        content_hash: Changes when the source does.
        document: Text and meta.
        passages: At least one.
        vectors: ``(len(passages), width)`` fp32, each of length 1.
    """

    source: str
    content_hash: str
    document: Document
    passages: Sequence[Passage]
    vectors: NDArray[np.float32]


def searched_text(passage: Passage) -> str:
    """What is embedded and indexed: the heading, which the passage's own words often take for granted, then it.

    Example:
        >>> document = Document(text="It is in June.", meta={"title": "Fair"})
        >>> from cypher.documents import split_passages
        >>> searched_text(split_passages(document)[0])
        'Fair. It is in June.'
    """
    return _prefix(storable(passage.heading)) + storable(passage.text)


def own_text(searched: str, heading: str) -> str:
    """The passage's text out of `searched_text` and the stored heading."""
    return searched.removeprefix(_prefix(heading))


def storable(text: str) -> str:
    """The text with U+FFFD for each lone surrogate, which UTF-8 cannot hold; offsets stay."""
    return _SURROGATES.sub("\ufffd", text)


def one_of(column: str, values: Iterable[str]) -> str:
    """SQL for ``column IN (values)``.

    Example:
        >>> one_of("source", ["it's"])
        "source IN ('it''s')"
    """
    quoted = ", ".join("'" + value.replace("'", "''") + "'" for value in values)
    return f"{column} IN ({quoted})"


def open_table(folder: Path) -> Any:
    """The table of a store, which shows other processes' commits at once.

    Raises:
        StoreError: LanceDB is not installed; its own errors pass.
    """
    return _connect(folder).open_table(TABLE)


def create_table(folder: Path, width: int) -> Any:
    """An empty table with its full-text index."""
    table = _connect(folder).create_table(TABLE, schema=_schema(width))
    index_text(table)
    return table


def table_folder(folder: Path) -> Path:
    """Where the table's files are."""
    return folder / f"{TABLE}.lance"


def index_text(table: Any) -> None:
    """Build the full-text index, in place of the one that is there: BM25 with k1 = 1.2 and b = 0.75."""
    from lancedb.index import FTS

    config = FTS(language="English", stem=True, remove_stop_words=True, ascii_folding=True)
    table.create_index("searched_text", config=config, replace=True)


def rows_of(documents: Sequence[EmbeddedDocument], width: int) -> pa.Table:
    """One row a passage; what belongs to the document is repeated in each, so that one commit holds it all."""
    import pyarrow as pa

    columns: dict[str, list[Any]] = {name: [] for name in _schema(width).names if name != "vector"}
    for entry in documents:
        meta = json.dumps(dict(entry.document.meta))
        for passage in entry.passages:
            columns["source"].append(entry.source)
            columns["content_hash"].append(entry.content_hash)
            columns["document_id"].append(entry.document.id)
            columns["meta"].append(meta)
            columns["passage_index"].append(passage.index)
            columns["start"].append(passage.start)
            columns["end"].append(passage.end)
            columns["page"].append(passage.page)
            columns["heading"].append(storable(passage.heading))
            columns["searched_text"].append(searched_text(passage))
    vectors = np.concatenate([entry.vectors for entry in documents]).astype(np.float32, copy=False)
    assert vectors.shape == (len(columns["source"]), width), "one vector a passage"
    column = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), width)
    return pa.table({**columns, "vector": column}, schema=_schema(width))


def vectors_of(rows: pa.Table, width: int) -> NDArray[np.float32]:
    """``(rows, width)`` fp32."""
    flat = rows["vector"].combine_chunks().flatten()
    return np.asarray(flat.to_numpy(zero_copy_only=False), dtype=np.float32).reshape(-1, width)


def _prefix(heading: str) -> str:
    return f"{heading[:_HEADING_CHARACTERS]}. " if heading else ""


def _connect(folder: Path) -> Any:
    try:
        import lancedb
    except ModuleNotFoundError as error:
        raise StoreError(
            f"the store at {folder}", needed="the library lancedb", change='pip install "nlp-cypher[qa]"'
        ) from error
    return lancedb.connect(str(folder), read_consistency_interval=timedelta(0))


def _schema(width: int) -> pa.Schema:
    import pyarrow as pa

    return pa.schema(
        [
            ("source", pa.string()),
            ("content_hash", pa.string()),
            ("document_id", pa.string()),
            ("meta", pa.string()),
            ("passage_index", pa.int32()),
            ("start", pa.int64()),
            ("end", pa.int64()),
            ("page", pa.int32()),
            ("heading", pa.string()),
            ("searched_text", pa.string()),
            ("vector", pa.list_(pa.float32(), width)),
        ]
    )
