"""What the model reads of each task: rows of the benchmark to rows of an objective, and its answers back.

- CB, RTE and the diagnostics: two texts, one label.
- WiC and WSC: two words or phrases, marked in two sentences or in one text, one label.
- COPA: the premise, and a question by its kind, that two sentences may answer.
- BoolQ: a question that "no" or "yes" answers, on a passage.
- MultiRC: a question with all its answers on one passage; any number of them right.
- ReCoRD: the query filled with each entity, all on one article; one of them right.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, cast

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
from cypher.config.compare import CompareConfig
from cypher.config.judge_candidates import JudgeCandidatesConfig
from cypher.models.load import LoadedModel
from cypher.tasks.compare import Compare, CompareRow
from cypher.tasks.judge_candidates import JudgeCandidates, JudgeRow
from cypher.train.task import Task

Objective: TypeAlias = Task[Any, Any, Any]
ObjectiveRow: TypeAlias = CompareRow | JudgeRow

# The words in which COPA's two kinds of question are asked (Roemmele et al. 2011, AAAI Spring Symposium).
_COPA_QUESTIONS = {"cause": "What was the cause of this?", "effect": "What happened as a result?"}


def form_config(task: BenchmarkTask, settings: Settings) -> CompareConfig | JudgeCandidatesConfig:
    """The configuration of the objective that a task is learnt by."""
    if task.key == "copa":
        return JudgeCandidatesConfig(
            right="one", max_length=settings.max_length, max_question_tokens=12, max_candidate_tokens=32
        )
    if task.key == "boolq":
        return JudgeCandidatesConfig(right="one", max_length=settings.max_length, max_candidate_tokens=4)
    if task.key == "multirc":
        return JudgeCandidatesConfig(right="any", max_length=settings.max_length)
    if task.key == "record":
        return JudgeCandidatesConfig(
            right="one", max_length=settings.max_length, max_question_tokens=4, max_candidate_tokens=96
        )
    return CompareConfig(
        labels=tuple(label_text(label) for label in task.labels),
        max_length=settings.max_length,
        metric="macro_f1" if task.key == "cb" else "accuracy",
    )


def objective(config: CompareConfig | JudgeCandidatesConfig, loaded: LoadedModel) -> Objective:
    """The objective itself, for a model."""
    parts: dict[str, Any] = {
        "tokenizer": loaded.tokenizer,
        "special": loaded.special,
        "segments": loaded.uses_segment_ids,
    }
    if isinstance(config, CompareConfig):
        return Compare(config, **parts)
    return JudgeCandidates(config, **parts)


def label_text(label: object) -> str:
    """A label of any type as the objective names it."""
    return label if isinstance(label, str) else json.dumps(label)


def objective_rows(rows: Sequence[Row]) -> list[Any]:
    """Rows of an objective, in order: one each, or one for each question of MultiRC and query of ReCoRD."""
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
    if isinstance(row, BoolQRow):
        right = None if row.label is None else (not row.label, row.label)
        return [JudgeRow(passage=row.passage, question=f"{row.question}?", candidates=("no", "yes"), right=right)]
    label = None if row.label is None else label_text(row.label)
    if isinstance(row, EntailmentRow):
        return [CompareRow(first=row.premise, second=row.hypothesis, label=label)]
    spans = (row.span1, row.span2)
    if isinstance(row, WicRow):
        return [CompareRow(first=row.sentence1, second=row.sentence2, spans=spans, label=label)]
    assert isinstance(row, WscRow), "every form of row is one of these"
    return [CompareRow(first=row.text, spans=spans, label=label)]


def _known(labels: Sequence[int | None]) -> tuple[bool, ...] | None:
    return None if None in labels else tuple(label == 1 for label in labels)


def learnable(rows: Sequence[Any], *, any_number: bool) -> list[Any]:
    """Without rows of which nothing is right, unless ``any_number`` of candidates may be."""
    return [row for row in rows if any_number or not isinstance(row, JudgeRow) or any(row.right or ())]


@dataclass(frozen=True, kw_only=True)
class Answers:
    """What an objective found, turned into predictions of the benchmark.

    Args:
        task: Which one.
        calibration: What was chosen with the checkpoint.
    """

    task: BenchmarkTask
    calibration: Mapping[str, Any]

    def predictions(self, rows: Sequence[Row], found: Sequence[Sequence[float]]) -> list[Any]:
        """One prediction a row, of the type of its label.

        Args:
            rows: Of the benchmark.
            found: What the objective predicted for :func:`objective_rows` of them.
        """
        remaining = iter(found)
        predictions = [self._prediction(row, remaining) for row in rows]
        if self.task.key == "wsc":
            _refer_once(rows, predictions, [one[1] for one in found])
        return predictions

    def _prediction(self, row: Row, found: Any) -> Any:
        if isinstance(row, MultiRcRow):
            threshold = cast(float, self.calibration["threshold"])
            return tuple(tuple(int(logit >= threshold) for logit in next(found)) for _ in row.questions)
        if isinstance(row, RecordRow):
            return tuple(row.entities[_best(next(found))] for _ in row.queries)
        return self.task.labels[_best(next(found))]


def _refer_once(rows: Sequence[Row], predictions: list[Any], probabilities: Sequence[float]) -> None:
    """A pronoun refers to one thing: of several rows about the same one only the most probable yes stands."""
    best: dict[tuple[str, tuple[int, int]], int] = {}
    for place, row in enumerate(rows):
        assert isinstance(row, WscRow), "rows of WSC"
        pronoun = (row.text, row.span2)
        if predictions[place] and (pronoun not in best or probabilities[place] > probabilities[best[pronoun]]):
            best[pronoun] = place
    kept = set(best.values())
    for place in range(len(predictions)):
        predictions[place] = predictions[place] and place in kept


def _best(scores: Sequence[float]) -> int:
    return max(range(len(scores)), key=scores.__getitem__)
