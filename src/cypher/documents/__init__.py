"""The text side: documents, spans, and the only reader of files."""

from cypher.documents.document import Document, MetaValue, Span
from cypher.documents.filters import And, Comparison, Filter, Membership, Not, Or, parse_filter
from cypher.documents.passages import Passage, split_passages
from cypher.documents.read import READERS, find_files, read_document
from cypher.documents.sentences import split_sentences

__all__ = [
    "READERS",
    "And",
    "Comparison",
    "Document",
    "Filter",
    "Membership",
    "MetaValue",
    "Not",
    "Or",
    "Passage",
    "Span",
    "find_files",
    "parse_filter",
    "read_document",
    "split_passages",
    "split_sentences",
]
