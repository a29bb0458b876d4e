"""Reading: against a search over all spans written out, and the rules that make answers of spans."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path

import pytest
import torch
from reader_parts import tiny_reader, write_reader

from cypher.apps.qa.reader import Reader
from cypher.documents import Document, split_passages
from cypher.errors import ConfigError
from cypher.tasks.extract_span import SpanCandidate, SpanRow
from cypher.tasks.find_reader import find_reader
from cypher.tasks.reader_folder import load_reader


@dataclass(frozen=True)
class Stretch:
    text: str
    document_id: str = "d"
    start: int = 0


TEXTS = (
    "The old mill by the river was built in 1871 and burnt down twice, the last time in the winter of 1902.",
    "Rye bread is what the baker of the village sells on Fridays; on all other days she is at the market in town.",
    "7",
    "",
)
QUESTIONS = ("When was the mill built?", "Who sells rye bread in the village?")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, tiny_bert: Path) -> Path:
    return write_reader(tmp_path_factory.mktemp("reader"), tiny_bert)


@pytest.fixture(scope="module")
def reader(folder: Path) -> Reader:
    return tiny_reader(folder)


def all_spans(folder: Path, question: str, passages: list[Stretch]) -> list[tuple[float, int, int, int]]:
    """``(margin, passage, start, end)`` of every span of every window, one window at a time, best first."""
    loaded = load_reader(folder)
    found = []
    for place, passage in enumerate(passages):
        for window in loaded.task.encode(SpanRow(id="", question=question, passage=passage.text), index=0):
            with torch.inference_mode():
                logits = loaded.model(loaded.task.collate([window]).inputs)[0][0].double()
            for first in range(len(window.offsets)):
                for last in range(first, min(first + loaded.task.config.max_answer_tokens, len(window.offsets))):
                    score = logits[window.passage_start + first, 0] + logits[window.passage_start + last, 1]
                    span = (window.offsets[first][0], window.offsets[last][1])
                    found.append((float(score - logits[0].sum()), place, *span))
    return sorted(found, key=lambda span: -span[0])


@pytest.mark.parametrize("question", QUESTIONS)
def test_the_best_spans_of_all_windows_and_passages_win(folder: Path, reader: Reader, question: str) -> None:
    passages = [Stretch(text, f"d{number}", 100 * number) for number, text in enumerate(TEXTS)]
    expected: list[tuple[float, int, int, int]] = []
    for span in all_spans(folder, question, passages):
        _, place, start, end = span
        if len(expected) < 4 and not any(
            other[1] == place and min(end, other[3]) > max(start, other[2]) for other in expected
        ):
            expected.append(span)
    assert len({span[1] for span in all_spans(folder, question, passages)}) == 3
    result = reader.read(question, passages, top_k=4, answers_per_window=500, no_answer=False, overlap_threshold=0.0)
    assert len(result.answers) == 4
    for answer, (margin, place, start, end) in zip(result.answers, expected, strict=True):
        assert (answer.passage, answer.text) == (place, TEXTS[place][start:end])
        assert (answer.start, answer.end) == (100 * place + start, 100 * place + end)
        assert answer.margin == pytest.approx(margin, abs=1e-3)
        assert answer.score == pytest.approx(1 / (1 + 2.718281828 ** -(0.3 * margin - 0.2)), abs=1e-4)
    assert result.no_answer_score == pytest.approx(prod(1 - answer.score for answer in result.answers))


def test_many_questions_at_once_are_each_question_alone(reader: Reader, monkeypatch: pytest.MonkeyPatch) -> None:
    passages = [Stretch(text, str(number)) for number, text in enumerate(TEXTS)]
    requests = [(question, passages[first:]) for question in QUESTIONS for first in range(len(passages) + 1)]
    alone = [reader.read(question, given) for question, given in requests]
    for pairs_at_once in (2048, 3):
        monkeypatch.setattr("cypher.apps.qa.reader.PAIRS_AT_ONCE", pairs_at_once)
        together = reader.read_many(requests)
        for one, other in zip(alone, together, strict=True):
            assert [answer.text for answer in one.answers] == [answer.text for answer in other.answers]
            assert [a.score for a in one.answers] == pytest.approx([a.score for a in other.answers], abs=1e-4)


def test_offsets_count_in_the_document_and_overlapping_passages_give_an_answer_once(reader: Reader) -> None:
    years = ("1871", "1902", "1911", "1923", "1954", "1987")
    document = Document(text=" ".join(f"The mill was built in {year}. It burnt down later." for year in years))
    passages = split_passages(document, words=20, overlap_words=12)
    assert any(one.end > other.start for one, other in itertools.pairwise(passages))
    result = reader.read(QUESTIONS[0], passages, top_k=5)
    spans = [(answer.start, answer.end) for answer in result.answers if answer.start is not None]
    assert len(spans) == 5
    for answer in result.answers:
        assert answer.text is None or document.text[answer.start : answer.end] == answer.text
    ordered = sorted((start, end or 0) for start, end in spans)
    assert all(one[1] <= other[0] for one, other in itertools.pairwise(ordered))


PAGE = "0123456789" * 3
HERE, OVERLAPPING, ELSEWHERE = Stretch(PAGE), Stretch(PAGE[5:], start=5), Stretch(PAGE, "e")


@pytest.mark.parametrize(
    ("spans", "overlap_threshold", "kept"),
    [
        ([], 0.01, []),
        ([(9.0, 0, 0, 10), (8.0, 0, 9, 20)], 0.0, [(0, 10)]),
        ([(9.0, 0, 0, 10), (8.0, 0, 9, 20)], 0.1, [(0, 10), (9, 20)]),
        ([(9.0, 0, 0, 10), (8.0, 0, 8, 20)], 0.1, [(0, 10)]),
        ([(9.0, 0, 0, 30), (8.0, 0, 4, 5)], 0.9, [(0, 30)]),
        ([(9.0, 0, 0, 10), (8.0, 0, 10, 20)], 0.0, [(0, 10), (10, 20)]),
        ([(9.0, 0, 0, 10), (8.0, 0, 1, 10)], 1.0, [(0, 10), (1, 10)]),
        ([(9.0, 0, 6, 10), (8.0, 1, 1, 5)], 1.0, [(6, 10)]),
        ([(8.0, 1, 1, 5), (9.0, 0, 7, 12)], 0.01, [(7, 12)]),
        ([(9.0, 0, 0, 10), (8.0, 2, 0, 10)], 0.0, [(0, 10), (0, 10)]),
        ([(9.0, 0, 0, 2), (8.0, 0, 4, 6), (7.0, 0, 8, 9), (6.0, 0, 12, 13)], 0.0, [(0, 2), (4, 6), (8, 9)]),
    ],
)
def test_two_answers_of_one_place_are_one(
    reader: Reader,
    spans: list[tuple[float, int, int, int]],
    overlap_threshold: float,
    kept: list[tuple[int, int]],
) -> None:
    found = [(SpanCandidate(start=start, end=end, score=score), place) for score, place, start, end in spans]
    result = reader._decide(
        [HERE, OVERLAPPING, ELSEWHERE], found, top_k=3, no_answer=False, overlap_threshold=overlap_threshold
    )
    assert [(answer.start, answer.end) for answer in result.answers] == kept


@pytest.mark.parametrize(
    ("margins", "threshold", "texts"),
    [
        # The threshold decides what comes first, whatever the product says.
        ([4.0, 2.0], 4.0, ["0", "1", None]),
        ([4.0, 2.0], 4.1, [None, "0", "1"]),
        ([-9.0, -9.5], -10.0, ["0", None, "1"]),
        ([-9.0, -9.5], 0.0, [None, "0", "1"]),
        # A second passage that would be answered alone turns "no answer" into an answer.
        ([1.0], 2.0, [None, "0"]),
        ([1.0, 3.0], 2.0, ["1", "0", None]),
        ([], -1e9, [None]),
    ],
)
def test_the_threshold_decides_between_an_answer_and_none(
    reader: Reader, margins: list[float], threshold: float, texts: list[str | None]
) -> None:
    found = [(SpanCandidate(start=n, end=n + 1, score=margin), 0) for n, margin in enumerate(margins)]
    held = reader.calibration
    reader.calibration = replace(held, threshold=threshold)
    try:
        result = reader._decide([HERE], found, top_k=3, no_answer=True, overlap_threshold=0.0)
    finally:
        reader.calibration = held
    assert [answer.text for answer in result.answers] == texts
    none = next(answer for answer in result.answers if answer.text is None)
    assert none.score == result.no_answer_score == pytest.approx(prod(1 - held.probability(m) for m in margins))
    assert (none.margin, none.passage, none.start, none.end) == (None, None, None, None)


def test_no_passages_and_no_answers_wanted(reader: Reader) -> None:
    for passages in ([], [Stretch("")], [Stretch(" \n ")]):
        result = reader.read("Who?", passages)
        assert [(answer.text, answer.score) for answer in result.answers] == [(None, 1.0)]
        assert reader.read("Who?", passages, no_answer=False).answers == ()
    none = reader.read("Who?", [HERE], top_k=0)
    assert [answer.text for answer in none.answers] == [None]
    assert reader.read_many([]) == []


def test_the_longest_answer_can_be_set(folder: Path) -> None:
    shortest = tiny_reader(folder, max_answer_tokens=1)
    tokenizer = shortest.task.tokenizer
    for answer in shortest.read(QUESTIONS[0], [Stretch(TEXTS[0])], top_k=6, no_answer=False).answers:
        assert answer.text is not None
        assert len(tokenizer.encode(answer.text, add_special_tokens=False).ids) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"top_k": -1}, "top_k = -1: needs at least 0"),
        ({"answers_per_window": 0}, "answers_per_window = 0: needs at least 1"),
        ({"overlap_threshold": 1.5}, "overlap_threshold = 1.5: needs a share"),
    ],
)
def test_numbers_out_of_range(reader: Reader, options: dict[str, int], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        reader.read("Who?", [HERE], **options)  # type: ignore[arg-type]


def test_a_longest_answer_out_of_range(folder: Path) -> None:
    with pytest.raises(ConfigError, match="max_answer_tokens = 0: needs at least 1"):
        tiny_reader(folder, max_answer_tokens=0)


@pytest.mark.real_weights
def test_the_shipped_reader_answers_and_declines(minilm_folder: Path) -> None:
    shipped = Reader(load_reader(find_reader("minilm-qa")))
    mill, bread = Stretch(TEXTS[0], "mill"), Stretch(TEXTS[1], "bread")
    built, sells = shipped.read_many([(question, [mill, bread]) for question in QUESTIONS])
    assert built.answers[0].text == "1871"
    assert sells.answers[0].text is not None
    assert "baker" in sells.answers[0].text
    assert shipped.read("How heavy is the moon?", [bread]).answers[0].text is None
