"""Evaluation against the task's own scores, and retrieval against the retriever."""

from __future__ import annotations

from pathlib import Path

import pytest
from reader_parts import write_reader

from cypher.apps.qa import QuestionAnswering
from cypher.apps.qa.evaluate import Evaluation, Mode, evaluate, sample
from cypher.data.readers import SquadAnswer, SquadParagraph, SquadQuestion, read_squad
from cypher.errors import DataError
from cypher.tasks.extract_span import SpanRow, score_spans
from cypher.tasks.reader_folder import load_reader
from cypher.tasks.span_rows import span_rows

KEYS = ["mode", "f1", "exact", "f1_answerable", "f1_unanswerable", "f1_forced", "recall@1", "recall@10", "mrr"]


def paragraph(title: str, context: str, *questions: tuple[str, str | None]) -> SquadParagraph:
    return SquadParagraph(
        title=title,
        context=context,
        questions=tuple(
            SquadQuestion(
                id=f"{title}-{number}",
                question=question,
                answers=() if answer is None else (SquadAnswer(text=answer, start=context.index(answer)),),
                is_impossible=answer is None,
            )
            for number, (question, answer) in enumerate(questions)
        ),
    )


PARAGRAPHS = [
    paragraph(
        "Old_mills",
        "The mill by the river was built in 1871 and it burnt down in the winter of 1902.",
        ("When was the mill built?", "1871"),
        ("When did the mill burn down?", "the winter of 1902"),
        ("Who painted the mill?", None),
    ),
    paragraph(
        "Bread",
        "Rye bread is sold by the baker of the village. On Fridays she is at the market.",
        ("Who sells rye bread?", "the baker of the village"),
        ("When is the baker at the market?", "On Fridays"),
        ("How much is the bread?", None),
    ),
    paragraph("Ferries", "The ferry to the island costs nothing.", ("What does the ferry cost?", "nothing")),
]


@pytest.fixture(scope="module")
def model(tiny_bert: Path) -> Path:
    return tiny_bert


def answering(model: Path, folder: Path, threshold: float) -> QuestionAnswering:
    reader = write_reader(folder, model, threshold=threshold)
    return QuestionAnswering(folder / "unused", model=str(model), reader=reader, precision="fp32")


@pytest.mark.parametrize("threshold", [-1e9, 2.0, 1e9])
def test_closed_scores_are_the_tasks_own(model: Path, tmp_path: Path, threshold: float) -> None:
    qa = answering(model, tmp_path, threshold)
    told: list[tuple[str, int, int]] = []
    found = evaluate(qa, PARAGRAPHS, mode="closed", progress=lambda *step: told.append(step)).to_dict()
    loaded = load_reader(tmp_path)
    rows = span_rows(PARAGRAPHS)
    expected = score_spans(rows, loaded.task.predict(loaded.model, rows), threshold=threshold)
    del expected["exact_forced"]
    assert {name: found[name] for name in expected} == pytest.approx(expected)
    assert list(found) == [*KEYS, "questions_per_s", "n_questions"]
    assert (found["recall@1"], found["recall@10"], found["mrr"], found["n_questions"]) == (None, None, None, 7)
    assert found["questions_per_s"] > 0
    assert told[-1] == ("answering", 7, 7)
    assert not (tmp_path / "unused").exists()


def test_open_finds_paragraphs_first(model: Path, tmp_path: Path) -> None:
    qa = answering(model, tmp_path, -1e9)
    found = evaluate(qa, PARAGRAPHS, mode="open", top_k_retriever=1)
    assert found.recall_at_10 == 1.0  # there are three paragraphs
    assert found.recall_at_1 is not None
    assert found.mrr is not None
    # Five of the questions have an answer; the paragraph of each is first, second or third.
    assert found.recall_at_1 * 5 == pytest.approx(round(found.recall_at_1 * 5))
    assert found.recall_at_1 + (1 - found.recall_at_1) / 3 <= found.mrr + 1e-9
    assert found.mrr <= found.recall_at_1 + (1 - found.recall_at_1) / 2 + 1e-9
    assert (found.mode, found.n_questions, found.f1_unanswerable) == ("open", 7, 0.0)
    closed = evaluate(qa, PARAGRAPHS, mode="closed")
    one = PARAGRAPHS[2:]
    assert evaluate(qa, one, mode="open").f1 == evaluate(qa, one, mode="closed").f1
    assert closed.f1_forced is not None


def test_kinds_without_questions_are_null(model: Path, tmp_path: Path) -> None:
    qa = answering(model, tmp_path, 1e9)
    impossible = [paragraph("T", "Nothing is here.", ("Who?", None))]
    found: Evaluation = evaluate(qa, impossible, mode="open")
    assert (found.f1, found.exact, found.f1_unanswerable) == (100.0, 100.0, 100.0)
    assert (found.f1_answerable, found.f1_forced, found.recall_at_1, found.mrr) == (None, None, None, None)


@pytest.mark.parametrize("mode", ["closed", "open"])
def test_a_question_without_a_word_does_not_end_an_evaluation(model: Path, tmp_path: Path, mode: Mode) -> None:
    qa = answering(model, tmp_path, -1e9)
    for blank in ([], PARAGRAPHS):
        rows = [paragraph("T", "Nothing is here.", (" \n", "Nothing")), *blank]
        found = evaluate(qa, rows, mode=mode)
        assert found.n_questions == 1 + 7 * bool(blank)
        assert found.recall_at_10 in ((None,) if mode == "closed" else (0.0, pytest.approx(5 / 6)))


def test_a_sample_is_always_the_same_and_grows() -> None:
    rows = [SpanRow(id=f"q{number}", question="Who?", passage="p") for number in range(200)]
    assert sample(rows, None) == rows
    ten, twenty = sample(rows, 10), sample(rows, 20)
    assert (len(ten), len(twenty)) == (10, 20)
    assert {row.id for row in ten} < {row.id for row in twenty}
    assert [row.id for row in sample(rows[::-1], 10)] == [row.id for row in ten][::-1]
    assert [rows.index(row) for row in ten] == sorted(rows.index(row) for row in ten) != list(range(10))
    with pytest.raises(DataError, match="the file has no question"):
        sample([], 5)


@pytest.mark.real_data
@pytest.mark.real_weights
@pytest.mark.slow
def test_the_shipped_reader_on_questions_it_never_saw(data_folder: Path, minilm_folder: Path) -> None:
    paragraphs = read_squad(data_folder / "squad" / "squad2_dev_open.json.gz")
    found = evaluate(QuestionAnswering(), paragraphs, mode="closed", limit=150)
    assert found.f1_forced is not None
    assert found.f1_forced > 65
    assert found.f1 > 50
