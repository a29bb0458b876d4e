"""Passages: nothing lost, nothing too long."""

from __future__ import annotations

import random
import time
from itertools import pairwise

import pytest

from cypher.documents import Document, Passage, split_passages
from cypher.errors import ConfigError

SENTENCES = " ".join(f"Sentence number {n} has exactly seven words." for n in range(100))


def assert_faithful(document: Document, passages: list[Passage]) -> None:
    """Offsets are exact, order is kept, and every character that is not white space is covered."""
    covered = 0
    for index, passage in enumerate(passages):
        assert passage.text == document.text[passage.start : passage.end]
        assert passage.text == passage.text.strip() != ""
        assert (passage.index, passage.document_id) == (index, document.id)
        assert passage.page == document.page_at(passage.start)
        assert not document.text[covered : passage.start].strip()
        assert passage.end > covered
        covered = passage.end
    assert not document.text[covered:].strip()


@pytest.mark.parametrize(("words", "overlap_words"), [(150, 30), (20, 0), (20, 7), (21, 14), (7, 6), (3, 2), (1, 0)])
def test_length_and_overlap(words: int, overlap_words: int) -> None:
    document = Document(text=SENTENCES)
    passages = split_passages(document, words=words, overlap_words=overlap_words)
    assert_faithful(document, passages)
    assert max(len(passage.text.split()) for passage in passages) <= words
    for left, right in pairwise(passages):
        shared = document.text[right.start : left.end]
        expected = overlap_words // 7 * 7 if words >= 7 else 0  # seven words are never cut in two to overlap
        assert words < 14 or len(shared.split()) == min(expected, words - 7)


def test_random_documents_lose_nothing() -> None:
    generator = random.Random(11)
    pieces = [
        "word",
        "Word",
        "x" * 60,
        "。",
        "日本語",
        ".",
        "! ",
        "\n",
        "\n\n",
        "\r\n",
        " ",
        " ",
        "  ",
        "\f",
        "# Head\n",
        "- ",
        "\u00a0",
    ]
    for _ in range(600):
        text = "".join(generator.choices(pieces, k=generator.randint(0, 120)))
        words = generator.randint(1, 30)
        meta = {"format": generator.choice(["text", "markdown"])}
        document = Document(text=text, meta=meta)
        assert_faithful(document, split_passages(document, words=words, overlap_words=generator.randrange(words)))


@pytest.mark.parametrize(
    ("text", "longest"),
    [
        ("x" * 10_000, 150 * 24),
        ("short " + "y" * 10_000 + " end", 150 * 24 + 6),
        ("word " * 1000, 150 * 5),
        ("字" * 1000, 150),
        ("字" * 3 + " " + "字" * 1000, 151),
    ],
)
def test_what_has_no_sentences_is_cut(text: str, longest: int) -> None:
    document = Document(text=text)
    passages = split_passages(document)
    assert_faithful(document, passages)
    assert len(passages) > 1
    assert max(len(passage.text) for passage in passages) <= longest
    assert len(passages) <= len(text) / longest * 2 + 1


def test_a_long_sentence_is_cut_at_line_ends_when_it_has_them() -> None:
    lines = "\n".join("eight words without a stop stand in here" for _ in range(10))
    passages = split_passages(Document(text=lines), words=30, overlap_words=0)
    assert [len(passage.text.split("\n")) for passage in passages] == [3, 3, 3, 1]
    assert all(passage.text.startswith("eight") for passage in passages)


def test_headings() -> None:
    body = " ".join("Six words make one such sentence." for _ in range(8))
    text = f"Preface here.\n\n# One\n\n{body}\n\n## Two\n{body}\n\n## Short\n\nTiny.\n\n## Three\n{body}"
    document = Document(text=text, meta={"format": "markdown", "title": "The book"})
    passages = split_passages(document, words=60, overlap_words=12)
    assert_faithful(document, passages)
    assert [passage.heading for passage in passages] == ["The book", "Two", "Short"]
    assert [passage.text.split("\n")[0] for passage in passages] == ["Preface here.", "## Two", "## Short"]
    plain = split_passages(Document(text=text, meta={"format": "text"}), words=60, overlap_words=12)
    assert {passage.heading for passage in plain} == {""}


def test_pages() -> None:
    document = Document(text="Page one.\fPage two.\f\fPage four.", pages=(0, 10, 20, 21))
    passages = split_passages(document, words=2, overlap_words=0)
    assert [(passage.text, passage.page) for passage in passages] == [
        ("Page one.", 1),
        ("Page two.", 2),
        ("Page four.", 4),
    ]


def test_a_document_of_white_space_has_no_passages() -> None:
    assert split_passages(Document(text=" \n\f ")) == []


@pytest.mark.parametrize(("words", "overlap_words"), [(0, 0), (-1, 0), (10, 10), (10, -1)])
def test_impossible_lengths_are_refused(words: int, overlap_words: int) -> None:
    with pytest.raises(ConfigError):
        split_passages(Document(text="x"), words=words, overlap_words=overlap_words)


def test_speed() -> None:
    document = Document(text=SENTENCES * 200)
    start = time.process_time()
    split_passages(document)
    seconds = time.process_time() - start
    assert len(document.text) / seconds > 1e6  # characters a second; five times that on an idle core
