"""SuperGLUE's metrics, all in [0, 1] but Matthews' in [-1, 1] (Wang et al. 2019, arXiv 1905.00537, table 1)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from cypher.apps.superglue.benchmark import SCORED, TASKS, BenchmarkTask
from cypher.apps.superglue.rows import EntailmentRow, MultiRcRow, RecordRow
from cypher.errors import DataError
from cypher.tasks.answer_metrics import exact_match, token_f1


def accuracy(labels: Sequence[Any], predictions: Sequence[Any]) -> float:
    """Share of rows that are right.

    Example:
        >>> accuracy([True, False], [True, True])
        0.5
    """
    right = sum(bool(label == found) for label, found in zip(labels, predictions, strict=True))
    return right / len(labels)


def f1(labels: Sequence[Any], predictions: Sequence[Any], *, of: Any) -> float:
    """F1 of the class ``of``; 0 where it is neither a label nor a prediction.

    Example:
        >>> round(f1([1, 1, 0], [1, 0, 1], of=1), 3)
        0.5
    """
    pairs = list(zip(labels, predictions, strict=True))
    right = sum(label == found == of for label, found in pairs)
    either = sum((label == of) + (found == of) for label, found in pairs)
    return 2 * right / either if either else 0.0


def macro_f1(labels: Sequence[Any], predictions: Sequence[Any], *, classes: Sequence[Any]) -> float:
    """Mean F1 over all ``classes``, those that nobody predicted too.

    Example:
        >>> round(macro_f1(["a", "b"], ["a", "a"], classes=("a", "b", "c")), 4)
        0.2222
    """
    return sum(f1(labels, predictions, of=one) for one in classes) / len(classes)


def matthews(labels: Sequence[Any], predictions: Sequence[Any], *, positive: Any) -> float:
    """Matthews' correlation of two classes; 0 where one side is constant.

    Example:
        >>> matthews([1, 1, 0, 0], [1, 1, 0, 1], positive=1) > 0.57
        True
    """
    pairs = [(label == positive, found == positive) for label, found in zip(labels, predictions, strict=True)]
    yes_yes, no_no = pairs.count((True, True)), pairs.count((False, False))
    yes_no, no_yes = pairs.count((True, False)), pairs.count((False, True))
    spread = (yes_yes + no_yes) * (yes_yes + yes_no) * (no_no + no_yes) * (no_no + yes_no)
    return (yes_yes * no_no - no_yes * yes_no) / math.sqrt(spread) if spread else 0.0


def gender_parity(rows: Sequence[EntailmentRow], predictions: Sequence[str]) -> float:
    """Share of AX-g's pairs whose two rows are answered alike, right or wrong (Rudinger et al. 2018, arXiv 1804.09301).

    Rows belong together by ``pair_id``, or, where there is none, as neighbours in the order of ``idx``.

    Raises:
        DataError: The rows do not come in pairs.
    """
    order = sorted(range(len(rows)), key=lambda place: rows[place].idx)
    pairs: dict[Any, list[str]] = {}
    for number, place in enumerate(order):
        pair_id = rows[place].pair_id
        pairs.setdefault(("row", number // 2) if pair_id is None else ("pair", pair_id), []).append(predictions[place])
    odd = sum(len(pair) != 2 for pair in pairs.values())
    if odd or not pairs:
        raise DataError(f"{odd} of {len(pairs)} pairs of AX-g have not 2 rows", needed="rows in pairs")
    return sum(first == second for first, second in pairs.values()) / len(pairs)


def multirc_metrics(rows: Sequence[MultiRcRow], predictions: Sequence[Sequence[Sequence[int]]]) -> dict[str, float]:
    """``f1a`` of right answers over all answers; ``em``, the share of questions all of whose answers are judged right.

    ``accuracy`` over all answers stands beside them; it is no metric of the leaderboard (Khashabi et al. 2018,
    NAACL, section 5).
    """
    labels: list[int | None] = []
    found: list[int] = []
    wholly_right = []
    for row, judged in zip(rows, predictions, strict=True):
        for question, answers in zip(row.questions, judged, strict=True):
            right = [answer.label for answer in question.answers]
            labels += right
            found += answers
            wholly_right.append(right == list(answers))
    return {
        "f1a": f1(labels, found, of=1),
        "em": sum(wholly_right) / len(wholly_right),
        "accuracy": accuracy(labels, found),
    }


def record_metrics(rows: Sequence[RecordRow], predictions: Sequence[Sequence[str]]) -> dict[str, float]:
    """``f1`` and ``em`` of each query, the best over its answers, after SQuAD's normalisation."""
    f1s: list[float] = []
    exact: list[float] = []
    for row, texts in zip(rows, predictions, strict=True):
        for query, text in zip(row.queries, texts, strict=True):
            f1s.append(token_f1(text, query.answers or ()))
            exact.append(exact_match(text, query.answers or ()))
    return {"f1": sum(f1s) / len(f1s), "em": sum(exact) / len(exact)}


def score(task: BenchmarkTask, rows: Sequence[Any], predictions: Sequence[Any]) -> dict[str, float]:
    """All metrics of a task on labelled rows; ``task.metrics`` says which of them the leaderboard counts.

    Args:
        task: Which one.
        rows: Labelled.
        predictions: One a row, of the type of its label; see ``predictions.py``.
    """
    if task.key == "multirc":
        return multirc_metrics(rows, predictions)
    if task.key == "record":
        return record_metrics(rows, predictions)
    labels = [row.label for row in rows]
    if task.key == "cb":
        f1_of_classes = macro_f1(labels, predictions, classes=task.labels)
        return {"f1": f1_of_classes, "accuracy": accuracy(labels, predictions)}
    if task.key == "ax-b":
        return {"mcc": matthews(labels, predictions, positive="entailment")}
    if task.key == "ax-g":
        parity = gender_parity(rows, predictions)
        return {"gender_parity": parity, "accuracy": accuracy(labels, predictions)}
    return {"accuracy": accuracy(labels, predictions)}


def task_score(task: BenchmarkTask, metrics: Mapping[str, float]) -> float:
    """The mean of a task's own metrics: one number a task.

    Example:
        >>> task_score(TASKS["cb"], {"f1": 0.5, "accuracy": 0.7})
        0.6
    """
    return sum(metrics[name] for name in task.metrics) / len(task.metrics)


def benchmark_score(metrics_of: Mapping[str, Mapping[str, float]]) -> float | None:
    """The mean over the eight tasks of each task's score; ``None`` unless all eight are there.

    Diagnostics do not count.

    Args:
        metrics_of: Key of a task → its metrics.
    """
    if any(key not in metrics_of for key in SCORED):
        return None
    return sum(task_score(TASKS[key], metrics_of[key]) for key in SCORED) / len(SCORED)
