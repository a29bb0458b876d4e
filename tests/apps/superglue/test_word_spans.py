"""Word numbers become characters, where they are right, a little off, or wrong."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from cypher.apps.superglue.benchmark import TASKS, read_rows
from cypher.apps.superglue.word_spans import checked_span, span_of_words
from cypher.errors import DataError

TEXT = 'Mr. Bond , the vet, saw " Old\tBlack " because it hurt. He let it go.'


@pytest.mark.parametrize(
    ("mention", "index", "expected"),
    [
        ("Mr. Bond", 0, "Mr. Bond"),
        ("the vet", 3, "the vet"),
        ("vet", 4, "vet"),
        ("Old\nBlack", 7, "Old\tBlack"),
        ("old black", 7, "Old\tBlack"),
        ("it", 11, "it"),
        ("hurt,", 12, "hurt"),
        ("Mr. Bond ,", 0, "Mr. Bond ,"),
    ],
)
def test_a_mention_is_found_where_it_stands(mention: str, index: int, expected: str) -> None:
    start, end = span_of_words(TEXT, mention, index=index, place="a")
    assert TEXT[start:end] == expected


def test_of_two_the_nearer_to_the_word_is_taken() -> None:
    first, second = TEXT.index("it hurt"), TEXT.index("it go")
    assert [span_of_words(TEXT, "it", index=index, place="a")[0] for index in (10, 12, 14, 15, 16)] == [
        *[first] * 2,
        *[second] * 3,
    ]


@pytest.mark.parametrize(("mention", "index"), [("it", 0), ("cat", 3), ("e", 13), ("...", 2), ("it", -9), ("it", 99)])
def test_a_mention_that_is_not_near_is_told(mention: str, index: int) -> None:
    with pytest.raises(DataError, match=r"^file, line 3: .* is not within 5 words of word"):
        span_of_words(TEXT, mention, index=index, place="file, line 3")


@pytest.mark.parametrize(("start", "end"), [(-1, 2), (3, 3), (5, 3), (0, 99), (3, 8), (1, 3)])
def test_offsets_that_are_no_word_are_refused(start: int, end: int) -> None:
    with pytest.raises(DataError, match="needs the first character of a word"):
        checked_span("Mr. Bond saw", start, end, place="file, line 3")


@pytest.mark.real_data
@pytest.mark.parametrize("stem", ["train", "val"])
def test_every_published_mention_is_the_text_at_its_place(stem: str, data_folder: Path) -> None:
    path = data_folder / "superglue_full" / "WSC" / f"{stem}.jsonl.gz"
    lines = [json.loads(line) for line in gzip.decompress(path.read_bytes()).decode("utf-8").splitlines()]
    for values, row in zip(lines, read_rows(TASKS["wsc"], path), strict=True):
        for number, (start, end) in ((1, row.span1), (2, row.span2)):
            mention = values["target"][f"span{number}_text"]
            assert row.text[start:end].lower().split() == mention.lower().strip(".,;").split()
