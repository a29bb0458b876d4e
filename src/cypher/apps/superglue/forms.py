"""What the model reads of each task: rows of the benchmark to rows of an objective, and its answers back.

- CB, RTE and the diagnostics: two texts, one label (``classify``).
- BoolQ: passage and question, likewise. Few rows are there to learn from: both orders are read, and their logits
  averaged.
- WiC and WSC: two words or phrases, marked in two sentences or in one text, one label (``classify_span_pair``). WiC's
  question is the same whichever sentence comes first, so both orders are read, too.
- COPA: a question by its kind on the premise, that two sentences may answer (``judge_candidates``, as the rest).
- MultiRC: a question with all its answers on one passage; any number of them right.
- ReCoRD: the query filled with each entity, all on one article; one of them right.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from cypher.apps.superglue.benchmark import BenchmarkTask
from cypher.apps.superglue.rows import (
    PLACEHOLDER,
    BoolQRow,
    CopaRow,
    EntailmentRow,
    MultiRcRow,
    RecordRow,
    Row,
    WicRow,
    WscRow,
)
from cypher.apps.superglue.settings import Settings
from cypher.tasks.classify import ClassifyRow
from cypher.tasks.classify_span_pair import SpanPairPrediction, SpanPairRow
from cypher.tasks.judge_candidates import JudgeRow

ObjectiveRow: TypeAlias = ClassifyRow | SpanPairRow | JudgeRow

# The words in which COPA's two kinds of question are asked (Roemmele et al. 2011, AAAI Spring Symposium).
_COPA_QUESTIONS = {"cause": "What was the cause of this?", "effect": "What happened as a result?"}


def form_config(task: BenchmarkTask, settings: Settings) -> dict[str, Any]:
    """The ``[task]`` section that a task is learnt by."""
    judge = {"kind": "judge_candidates", "right": "one", "max_length": settings.max_length}
    if task.key == "copa":
        return {**judge, "max_question_tokens": 12, "max_candidate_tokens": 32}
    if task.key == "record":
        return {**judge, "max_question_tokens": 4, "max_candidate_tokens": 96}
    if task.key == "multirc":
        return {**judge, "right": "any"}
    return {
        "kind": "classify_span_pair" if task.key in ("wic", "wsc") else "classify",
        "labels": [label_text(label) for label in task.labels],
        "max_length": settings.max_length,
        "metric": "macro_f1" if task.key == "cb" else "accuracy",
    }


def label_text(label: object) -> str:
    """A label of any type as the objective names it."""
    return label if isinstance(label, str) else json.dumps(label)


def objective_rows(rows: Sequence[Row]) -> list[Any]:
    """Rows of an objective, in order: one a row, question of MultiRC, query of ReCoRD, order of BoolQ and WiC."""
    return [made for row in rows for made in _objective_rows(row)]


def _objective_rows(row: Row) -> list[ObjectiveRow]:
    if isinstance(row, MultiRcRow):
        return [
            JudgeRow(
                passage=row.passage,
                question=question.question,
                candidates=tuple(answer.text for answer in question.answers),
                right=_known([answer.label for answer in question.answers]),
            )
            for question in row.questions
        ]
    if isinstance(row, RecordRow):
        return [
            JudgeRow(
                passage=row.passage,
                question="",
                candidates=tuple(query.query.replace(PLACEHOLDER, entity) for entity in row.entities),
                right=None if query.answers is None else tuple(entity in query.answers for entity in row.entities),
            )
            for query in row.queries
        ]
    if isinstance(row, CopaRow):
        right = None if row.label is None else (row.label == 0, row.label == 1)
        question = _COPA_QUESTIONS[row.question]
        return [JudgeRow(passage=row.premise, question=question, candidates=row.choices, right=right)]
    label = None if row.label is None else label_text(row.label)
    labels = None if label is None else (label,)
    if isinstance(row, BoolQRow):
        texts = row.passage, f"{row.question}?"
        return [ClassifyRow(text=text, pair=pair, labels=labels) for text, pair in (texts, texts[::-1])]
    if isinstance(row, EntailmentRow):
        return [ClassifyRow(text=row.premise, pair=row.hypothesis, labels=labels)]
    if isinstance(row, WicRow):
        sides = ((row.sentence1, row.span1), (row.sentence2, row.span2))
        return [
            SpanPairRow(text=text, pair=pair, first=first, second=second, label=label)
            for (text, first), (pair, second) in (sides, sides[::-1])
        ]
    assert isinstance(row, WscRow), "every form of row is one of these"
    return [SpanPairRow(text=row.text, first=row.span1, second=row.span2, label=label)]


def _known(labels: Sequence[int | None]) -> tuple[bool, ...] | None:
    return None if None in labels else tuple(label == 1 for label in labels)


def learnable(rows: Sequence[Any], *, any_number: bool) -> list[Any]:
    """Without rows of which nothing is right, unless ``any_number`` of candidates may be."""
    return [row for row in rows if any_number or not isinstance(row, JudgeRow) or any(row.right or ())]


def table_line(row: ObjectiveRow) -> dict[str, Any]:
    """A labelled row as a line of the tables that a recipe reads."""
    if isinstance(row, JudgeRow):
        return {
            "passage": row.passage,
            "question": row.question,
            "candidates": list(row.candidates),
            "right": list(row.right or ()),
        }
    if isinstance(row, ClassifyRow):
        return {"text": row.text, "pair": row.pair, "label": (row.labels or ("",))[0]}
    spans = {
        "first_start": row.first[0],
        "first_end": row.first[1],
        "second_start": row.second[0],
        "second_end": row.second[1],
    }
    pair = {} if row.pair is None else {"pair": row.pair}
    return {"text": row.text, **pair, **spans, "label": row.label}


def table_columns(task: BenchmarkTask) -> dict[str, str]:
    """The fields of those tables that a recipe has to name, since not every table has them."""
    if task.key in ("copa", "multirc", "record"):
        return {"question": "question"}
    return {} if task.key == "wsc" else {"pair": "pair"}


@dataclass(frozen=True, kw_only=True)
class Answers:
    """What an objective found, turned into predictions of the benchmark.

    Args:
        task: Which one.
        calibration: What was chosen with the checkpoint.
    """

    task: BenchmarkTask
    calibration: Mapping[str, Any]

    def predictions(self, rows: Sequence[Row], found: Sequence[Any]) -> list[Any]:
        """One prediction a row, of the type of its label.

        Args:
            rows: Of the benchmark.
            found: What the objective predicted for :func:`objective_rows` of them.
        """
        remaining = iter(found)
        predictions = [self._prediction(row, remaining) for row in rows]
        if self.task.key == "wsc":
            _refer_once(rows, predictions, found)
        return predictions

    def _prediction(self, row: Row, found: Any) -> Any:
        if isinstance(row, MultiRcRow):
            threshold = self.calibration["threshold"]
            return tuple(tuple(int(logit >= threshold) for logit in next(found)) for _ in row.questions)
        if isinstance(row, RecordRow):
            return tuple(row.entities[_best(next(found))] for _ in row.queries)
        if isinstance(row, CopaRow):
            return self.task.labels[_best(next(found))]
        # Logits of the labels, in their order.
        logits = next(found).logits
        if isinstance(row, (BoolQRow, WicRow)):
            logits = [(one + other) / 2 for one, other in zip(logits, next(found).logits, strict=True)]
        return self.task.labels[_best(logits)]


def _refer_once(rows: Sequence[Row], predictions: list[Any], found: Sequence[SpanPairPrediction]) -> None:
    """A pronoun refers to one thing: of several rows about the same one only the most probable yes stands."""
    margins = [one.logits[1] - one.logits[0] for one in found]
    best: dict[tuple[str, tuple[int, int]], int] = {}
    for place, row in enumerate(rows):
        assert isinstance(row, WscRow), "rows of WSC"
        pronoun = (row.text, row.span2)
        if predictions[place] and (pronoun not in best or margins[place] > margins[best[pronoun]]):
            best[pronoun] = place
    kept = set(best.values())
    for place in range(len(predictions)):
        predictions[place] = predictions[place] and place in kept


def _best(scores: Sequence[float]) -> int:
    return max(range(len(scores)), key=scores.__getitem__)
