"""Answers as spans of a passage, or none (Devlin et al. 2019, arXiv 1810.04805, sections 4.2 and 4.3).

A question and a long passage become windows that overlap. The first token stands for "no answer here"; a span's
score is the sum of its start and end logits minus that of the first token, so scores compare across windows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from tokenizers import Tokenizer
from torch import Tensor

from cypher.config import ExtractSpanConfig
from cypher.data.batch import Batch, batches_for_inference, pad_inputs
from cypher.data.batch_workers import each_batch
from cypher.hub.tokenizer import SpecialTokens
from cypher.layers.linear import Linear
from cypher.layers.token_sum import Losses, TokenSum
from cypher.models.headed import HeadedModel
from cypher.models.model import Encoded, Head, Model
from cypher.tasks.answer_metrics import exact_match, token_f1
from cypher.tasks.calibration import Calibration, fit_calibration
from cypher.tasks.span_decoding import best_spans
from cypher.train.task import Task

# Tokens of one inference batch, padding included: large enough for the matrix units, small enough for the cache.
# Two or three windows: passages differ in length, and what a larger batch saves it loses to padding.
BATCH_TOKENS = 512


@dataclass(frozen=True, kw_only=True)
class SpanRow:
    """A question about a passage.

    Args:
        id: Of the question.
        question: Its text.
        passage: Text the answer is a part of.
        answers: Gold answers as ``(start, end)`` characters of the passage; none = unanswerable from it.
    """

    id: str
    question: str
    passage: str
    answers: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True, kw_only=True)
class Window:
    """A question with one stretch of its passage, as token ids.

    Args:
        row: Place of its row in the list of rows.
        token_ids: Of the whole window.
        passage_start: Index of its first passage token.
        offsets: ``(start, end)`` characters of each passage token.
        answers: Gold ``(first, last)`` tokens that lie wholly inside; none = ``(0, 0)``, the first token.
    """

    row: int
    token_ids: tuple[int, ...]
    passage_start: int
    offsets: tuple[tuple[int, int], ...]
    answers: tuple[tuple[int, int], ...]


@dataclass(frozen=True, kw_only=True)
class SpanCandidate:
    """A possible answer.

    Args:
        start: First character in the passage.
        end: One past its last.
        score: Start plus end logit minus those of "no answer" in the same window; above 0 the model prefers it.
    """

    start: int
    end: int
    score: float


class SpanHead(Head):
    """Start and end logits of every token.

    Args:
        width: Of the hidden states.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.scores = Linear(width, 2)
        torch.nn.init.normal_(self.scores.weight, std=0.02)
        torch.nn.init.zeros_(self.scores.bias)

    def forward(self, encoded: Encoded) -> Tensor:
        """``(rows, seq, 2)``."""
        logits: Tensor = self.scores(encoded.scatter())
        return logits


class ExtractSpan(Task[SpanRow, Window, SpanCandidate | None]):
    """The task: windows, head, loss, prediction and score.

    Args:
        config: Window sizes and the longest answer.
        tokenizer: Of the model, without truncation and padding.
        special: The ids it puts around texts.
        segments: Whether the model tells question and passage apart by segment ids.
    """

    kind = "extract_span"
    metric = "f1"

    def __init__(
        self,
        config: ExtractSpanConfig,
        *,
        tokenizer: Tokenizer,
        special: SpecialTokens,
        segments: bool = True,
    ) -> None:
        self.config = config
        self.tokenizer = tokenizer
        self.special = special
        self.segments = segments
        self._passages: dict[str, tuple[list[int], list[tuple[int, int]]]] = {}

    def head(self, model: Model) -> SpanHead:
        """A fresh head."""
        return SpanHead(model.width)

    def encode(self, row: SpanRow, *, index: int) -> list[Window]:
        """Windows of one row, in the order of the passage; at least one."""
        question = self.tokenizer.encode(row.question, add_special_tokens=False).ids
        prefix = [self.special.cls_id, *question[: self.config.max_question_tokens], self.special.sep_id]
        token_ids, offsets = self._tokenise(row.passage)
        room = self.config.max_length - len(prefix) - 1
        answers = [_token_span(offsets, *answer) for answer in row.answers]
        windows = []
        for start in range(0, max(1, len(token_ids) - self.config.stride), room - self.config.stride):
            end = min(start + room, len(token_ids))
            inside = tuple(
                (first - start + len(prefix), last - start + len(prefix))
                for first, last in dict.fromkeys(answer for answer in answers if answer is not None)
                if start <= first and last < end
            )
            windows.append(
                Window(
                    row=index,
                    token_ids=(*prefix, *token_ids[start:end], self.special.sep_id),
                    passage_start=len(prefix),
                    offsets=tuple(offsets[start:end]),
                    answers=inside or ((0, 0),),
                )
            )
            if end == len(token_ids):
                break
        return windows

    def _tokenise(self, passage: str) -> tuple[list[int], list[tuple[int, int]]]:
        """Ids and character offsets of a passage; neighbouring rows ask about the same one, so the last few stay."""
        if passage not in self._passages:
            if len(self._passages) >= 256:
                self._passages.pop(next(iter(self._passages)))
            encoding = self.tokenizer.encode(passage, add_special_tokens=False)
            self._passages[passage] = (encoding.ids, encoding.offsets)
        return self._passages[passage]

    def length(self, example: Window) -> int:
        """Tokens of the window."""
        return len(example.token_ids)

    def collate(self, examples: Sequence[Window]) -> Batch:
        """Targets: ``allowed (batch, seq)`` bool; ``answers (batch, golds, 2)`` int64, -1 where there are fewer."""
        segments = None
        if self.segments:
            segments = [[int(place >= window.passage_start) for place in range(len(window.token_ids))]
                        for window in examples]  # fmt: skip
        inputs = pad_inputs([window.token_ids for window in examples], pad_id=self.special.pad_id, segment_ids=segments)
        place = torch.arange(inputs.token_ids.shape[1])
        first = torch.tensor([window.passage_start for window in examples]).unsqueeze(1)
        last = first + torch.tensor([len(window.offsets) for window in examples]).unsqueeze(1)
        most = max(len(window.answers) for window in examples)
        answers = [[*window.answers, *[(-1, -1)] * (most - len(window.answers))] for window in examples]
        targets = {"allowed": (place >= first) & (place < last), "answers": torch.tensor(answers)}
        return Batch(inputs=inputs, targets=targets, rows=tuple(window.row for window in examples))

    def counts(self, batch: Batch) -> Mapping[str, int]:
        """One term a window."""
        return {"span": len(batch.rows)}

    def losses(self, head: Head, encoded: Encoded, batch: Batch) -> Losses:
        """Negative log-likelihood of *any* gold span: annotators disagree on borders, and each is right.

        ``-log Σ p_start(first) · p_end(last)`` over the gold spans of a window (Clark and Gardner 2018,
        arXiv 1710.10723, section 4).
        """
        hidden = ~batch.targets["allowed"]
        hidden[:, 0] = False
        log_probabilities = head(encoded).float().masked_fill(hidden.unsqueeze(-1), float("-inf")).log_softmax(1)
        answers = batch.targets["answers"]
        golds = log_probabilities.gather(1, answers.clamp(min=0)).sum(-1)
        golds = golds.masked_fill(answers[..., 0] < 0, float("-inf"))
        total = -golds.logsumexp(1).sum()
        return {"span": TokenSum(total=total, count=len(batch.rows)), **encoded.losses}

    def candidates(
        self, model: HeadedModel, windows: Sequence[Window], *, top_k: int
    ) -> list[tuple[int, SpanCandidate]]:
        """The best spans of each window.

        Args:
            model: In evaluation mode.
            windows: Of any rows, in any order.
            top_k: Spans kept of each window.

        Returns:
            ``(row, candidate)``, windows of like length together; the same order whichever thread is first.
        """
        lengths = [len(window.token_ids) for window in windows]
        batches = list(batches_for_inference(lengths, batch_tokens=BATCH_TOKENS))
        found: list[list[tuple[int, SpanCandidate]]] = [[] for _ in batches]

        def look(place_of_batch: int) -> None:
            chosen = batches[place_of_batch]
            batch = self.collate([windows[place] for place in chosen])
            logits = model(batch.inputs)[0].float()
            best = best_spans(
                logits, batch.targets["allowed"], top_k=top_k, max_answer_tokens=self.config.max_answer_tokens
            )
            scores = (best.score - logits[:, 0].sum(-1, keepdim=True)).tolist()
            for place, starts, ends, values in zip(chosen, best.start.tolist(), best.end.tolist(), scores, strict=True):
                window = windows[place]
                for start, end, score in zip(starts, ends, values, strict=True):
                    if score == float("-inf"):
                        continue
                    first = window.offsets[start - window.passage_start][0]
                    last = window.offsets[end - window.passage_start][1]
                    found[place_of_batch].append((window.row, SpanCandidate(start=first, end=last, score=score)))

        each_batch(look, range(len(batches)))
        return [candidate for part in found for candidate in part]

    def predict(self, model: HeadedModel, rows: Sequence[SpanRow]) -> list[SpanCandidate | None]:
        """The best span of each row, ``None`` only for a passage without any token."""
        windows = [window for index, row in enumerate(rows) for window in self.encode(row, index=index)]
        best: list[SpanCandidate | None] = [None] * len(rows)
        for row, candidate in self.candidates(model, windows, top_k=1):
            held = best[row]
            if held is None or candidate.score > held.score:
                best[row] = candidate
        return best

    def score(self, rows: Sequence[SpanRow], predictions: Sequence[SpanCandidate | None]) -> dict[str, float]:
        """Percent: ``f1`` and ``exact`` of all rows under the threshold that suits these rows best, and by kind.

        ``f1_forced`` is that of answerable rows when an answer is always given.
        """
        calibration = self._calibration(rows, predictions)
        return score_spans(rows, predictions, threshold=calibration.threshold)

    def calibrate(self, rows: Sequence[SpanRow], predictions: Sequence[SpanCandidate | None]) -> dict[str, Any]:
        """Scale, bias and threshold that turn scores into probabilities and "no answer"."""
        return self._calibration(rows, predictions).to_dict()

    @staticmethod
    def _calibration(rows: Sequence[SpanRow], predictions: Sequence[SpanCandidate | None]) -> Calibration:
        scores = [float("-inf") if found is None else found.score for found in predictions]
        f1 = [_row_metric("f1", row, found) for row, found in zip(rows, predictions, strict=True)]
        return fit_calibration(scores, f1, answerable=[bool(row.answers) for row in rows])


def score_spans(
    rows: Sequence[SpanRow], predictions: Sequence[SpanCandidate | None], *, threshold: float
) -> dict[str, float]:
    """Metrics in percent of predictions, where a score below ``threshold`` means "no answer".

    Returns:
        ``f1, exact`` over all rows; ``f1_answerable, f1_unanswerable`` by kind; ``f1_forced, exact_forced`` of the
        answerable rows with no threshold. Kinds without rows are left out.
    """
    kept = [found if found is not None and found.score >= threshold else None for found in predictions]
    everything = list(zip(rows, kept, strict=True))
    answerable = [(row, found) for row, found in everything if row.answers]
    forced = [(row, found) for row, found in zip(rows, predictions, strict=True) if row.answers]
    groups: list[tuple[str, Literal["f1", "exact"], list[tuple[SpanRow, SpanCandidate | None]]]] = [
        ("f1", "f1", everything),
        ("exact", "exact", everything),
        ("f1_answerable", "f1", answerable),
        ("f1_unanswerable", "f1", [(row, found) for row, found in everything if not row.answers]),
        ("f1_forced", "f1", forced),
        ("exact_forced", "exact", forced),
    ]
    return {
        name: 100 * sum(_row_metric(metric, row, found) for row, found in group) / len(group)
        for name, metric, group in groups
        if group
    }


def _row_metric(metric: Literal["f1", "exact"], row: SpanRow, found: SpanCandidate | None) -> float:
    text = "" if found is None else row.passage[found.start : found.end]
    golds = [row.passage[start:end] for start, end in row.answers]
    return token_f1(text, golds) if metric == "f1" else exact_match(text, golds)


def _token_span(offsets: Sequence[tuple[int, int]], start: int, end: int) -> tuple[int, int] | None:
    """First and last token that overlap characters ``[start, end)``; ``None`` if there is none."""
    inside = [place for place, (first, last) in enumerate(offsets) if first < end and last > start]
    return (inside[0], inside[-1]) if inside else None
