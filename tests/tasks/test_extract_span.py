"""Windows, loss, prediction and score of span extraction."""

from __future__ import annotations

import time

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers

from cypher.config import ExtractSpanConfig
from cypher.hub.tokenizer import SpecialTokens
from cypher.models.bert import Bert, BertConfig
from cypher.models.headed import HeadedModel
from cypher.tasks import extract_span
from cypher.tasks.extract_span import ExtractSpan, SpanCandidate, SpanRow, score_spans

SPECIAL = SpecialTokens(cls_id=1, sep_id=2, pad_id=0, mask_id=None)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    words = {
        word: index for index, word in enumerate(["[PAD]", "[CLS]", "[SEP]", "[UNK]", *(f"w{n}" for n in range(96))])
    }
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return tokenizer


def task(tokenizer: Tokenizer, **sizes: int) -> ExtractSpan:
    config = ExtractSpanConfig(**{"max_length": 30, "stride": 6, "max_question_tokens": 8, **sizes})
    return ExtractSpan(config, tokenizer=tokenizer, special=SPECIAL)


def row(n_words: int, answers: tuple[tuple[int, int], ...] = ()) -> SpanRow:
    return SpanRow(id="q", question="w1 w2 w3", passage=" ".join(f"w{n}" for n in range(n_words)), answers=answers)


def test_windows_cover_the_passage_with_the_stride_between_them(tokenizer: Tokenizer) -> None:
    windows = task(tokenizer).encode(row(60), index=4)
    room = 30 - 5 - 1
    starts = [int(window.token_ids[window.passage_start]) - 4 for window in windows]
    assert starts == [0, room - 6, 2 * (room - 6)]
    assert all(window.row == 4 and len(window.token_ids) <= 30 for window in windows)
    covered = {offset for window in windows for offset in window.offsets}
    assert covered == set(tokenizer.encode(row(60).passage, add_special_tokens=False).offsets)
    assert windows[0].token_ids[:5] == (1, 5, 6, 7, 2)
    assert all(window.token_ids[-1] == 2 for window in windows)


def test_answers_are_tokens_of_their_window_or_the_first_token(tokenizer: Tokenizer) -> None:
    passage = row(60).passage
    start = passage.index("w20")
    windows = task(tokenizer).encode(row(60, ((start, start + len("w20 w21")),)), index=0)
    for window in windows:
        for first, last in window.answers:
            if first:
                begin = window.offsets[first - window.passage_start][0]
                end = window.offsets[last - window.passage_start][1]
                assert passage[begin:end] == "w20 w21"
    assert [window.answers == ((0, 0),) for window in windows] == [False, False, True]


@pytest.mark.parametrize("n_words", [0, 1, 24, 25])
def test_short_and_exact_passages(tokenizer: Tokenizer, n_words: int) -> None:
    windows = task(tokenizer).encode(row(n_words), index=0)
    assert len(windows) == (2 if n_words == 25 else 1)


def model(tokenizer: Tokenizer) -> tuple[ExtractSpan, HeadedModel]:
    torch.manual_seed(0)
    objective = task(tokenizer)
    bert = Bert(BertConfig(vocabulary_size=100, width=16, n_layers=1, n_heads=2, inner_width=16, dropout=0))
    return objective, HeadedModel(bert, objective.head(bert)).eval()


def test_loss_is_minus_log_of_all_gold_spans(tokenizer: Tokenizer) -> None:
    objective, headed = model(tokenizer)
    golds = ((0, 2), (3, 8))
    batch = objective.collate(objective.encode(row(12, golds), index=0))
    loss = objective.step(headed, batch)["span"]
    logits = headed(batch.inputs)[0][0]
    allowed = batch.targets["allowed"][0]
    allowed[0] = True
    start, end = (torch.softmax(logits[:, side].masked_fill(~allowed, -1e9), 0) for side in (0, 1))
    expected = -torch.log(start[5] * end[5] + start[6] * end[7])
    torch.testing.assert_close(loss.total, expected)
    assert loss.count == 1


def test_prediction_is_the_best_span_of_all_windows(tokenizer: Tokenizer) -> None:
    objective, headed = model(tokenizer)
    rows = [row(60), row(9), row(0)]
    predictions = objective.predict(headed, rows)
    assert predictions[2] is None
    windows = objective.encode(rows[0], index=0)
    every = objective.candidates(headed, windows, top_k=5)
    best = max((candidate for _, candidate in every), key=lambda candidate: candidate.score)
    assert predictions[0] is not None
    assert predictions[0].score == pytest.approx(best.score, abs=1e-5)
    assert all(0 <= candidate.start < candidate.end <= len(rows[0].passage) for _, candidate in every)


def test_score_by_kind(tokenizer: Tokenizer) -> None:
    rows = [row(5, ((0, 2),)), row(5, ((0, 2),)), row(5)]
    predictions = [
        SpanCandidate(start=0, end=2, score=3.0),
        SpanCandidate(start=0, end=2, score=-1.0),
        SpanCandidate(start=3, end=5, score=-2.0),
    ]
    scores = score_spans(rows, predictions, threshold=0.0)
    assert scores == pytest.approx(
        {
            "f1": 200 / 3,
            "exact": 200 / 3,
            "f1_answerable": 50.0,
            "f1_unanswerable": 100.0,
            "f1_forced": 100.0,
            "exact_forced": 100.0,
        }
    )
    assert task(tokenizer).calibrate(rows, predictions)["threshold"] == pytest.approx(-1.5)


def test_the_order_of_candidates_is_not_that_of_the_threads(
    tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(extract_span, "BATCH_TOKENS", 30)
    objective, headed = model(tokenizer)
    rows = enumerate((row(20), row(8), row(14)))
    windows = [window for index, about in rows for window in objective.encode(about, index=index)]
    # The longest window goes first and is slowest by far, so that with two threads its candidates come last.
    headed.model.register_forward_pre_hook(
        lambda _, given: time.sleep(0.2 if given[0].token_ids.shape[1] > 24 else 0.0)
    )
    threads, orders = torch.get_num_threads(), []
    try:
        for number in (1, 2):
            torch.set_num_threads(number)
            orders.append([found for found, _ in objective.candidates(headed, windows, top_k=2)])
    finally:
        torch.set_num_threads(threads)
    assert orders[0] == orders[1] == [0, 0, 2, 2, 1, 1]
