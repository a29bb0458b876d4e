"""Whether the leaderboard would take an archive: every rule of ``submission.py``, read back from the zip itself."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from cypher.apps.superglue.benchmark import TASKS, BenchmarkTask, idx_of
from cypher.apps.superglue.rows import MultiRcRow, RecordRow, Row
from cypher.apps.superglue.submission import file_name, submission_label
from cypher.errors import DataError

# So many problems of one file are told; the rest would say the same.
MOST_PROBLEMS = 5


def check_archive(path: Path, rows_of: Mapping[str, Sequence[Row]] | None = None) -> list[str]:
    """Everything that is wrong with a submission, a line each; none means that it is valid.

    Args:
        path: The zip.
        rows_of: Key of a task → the rows it should answer; their ``idx`` are then compared. Where a task has none,
            its lines are checked by themselves.

    Raises:
        DataError: It is no zip.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            contents = {name: archive.read(name) for name in set(names)}
    except (OSError, zipfile.BadZipFile) as error:
        raise DataError(f"{path} cannot be read as a zip ({error})", needed="a submission") from None
    wanted = {file_name(task): task for task in TASKS.values()}
    problems = [f"{name} is missing at the top level" for name in wanted if name not in contents]
    problems += [f"{name} does not belong in a submission" for name in sorted(contents) if name not in wanted]
    problems += [f"{name} is there twice" for name in wanted if names.count(name) > 1]
    for name, task in wanted.items():
        if name in contents:
            found = _problems(task, contents[name], (rows_of or {}).get(task.key))
            told = [problem for _, problem in zip(range(MOST_PROBLEMS), found, strict=False)]
            problems += [f"{name}{problem}" for problem in told]
    return problems


def _problems(task: BenchmarkTask, content: bytes, rows: Sequence[Row] | None) -> Iterator[str]:
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError:
        yield " is not UTF-8"
        return
    lines: list[dict[str, Any]] = []
    for number, line in enumerate(text.splitlines(), start=1):
        try:
            values = json.loads(line)
        except ValueError:
            yield f", line {number} is not JSON"
            return
        keys = {"idx", "passage"} if task.key == "multirc" else {"idx", "label"}
        if not isinstance(values, dict) or set(values) != keys:
            yield f", line {number}: needs the keys {' and '.join(sorted(keys))} and no other"
            return
        if type(values["idx"]) is not int:
            yield f", line {number}: idx {json.dumps(values['idx'])} is no number"
            return
        problem = _nested_problem(values["passage"]) if task.key == "multirc" else _label_problem(task, values["label"])
        if problem:
            yield f", line {number}: {problem}"
        lines.append(values)
    if not lines:
        yield " has no lines"
        return
    idx = [line["idx"] for line in lines]
    if len(set(idx)) < len(idx):
        yield f": idx {next(one for one in idx if idx.count(one) > 1)} stands there twice"
    if rows is None:
        if task.test_size is not None and set(idx) != set(range(task.test_size)):
            yield f" has {len(idx)} lines; needs one for each idx from 0 to {task.test_size - 1} of the test file"
    else:
        yield from _differences(lines, rows)


def _label_problem(task: BenchmarkTask, label: object) -> str:
    if not task.labels:
        return "" if isinstance(label, str) and label.strip() else f"label {json.dumps(label)} is no entity's text"
    allowed = [submission_label(task, one) for one in task.labels]
    if any(type(label) is type(one) and label == one for one in allowed):
        return ""
    return f"label {json.dumps(label)}; needs one of {', '.join(json.dumps(one) for one in allowed)}"


def _nested_problem(passage: object) -> str:
    seen = set()
    try:
        for question in passage["questions"]:  # type: ignore[index]
            for answer in question["answers"]:
                place = (question["idx"], answer["idx"])
                if type(place[0]) is not int or type(place[1]) is not int:
                    return f"idx {json.dumps(place[0])} › {json.dumps(place[1])} are no numbers"
                if type(answer["label"]) is not int or answer["label"] not in (0, 1):
                    return f"answer label {json.dumps(answer['label'])}; needs 0 or 1"
                if place in seen:
                    return f"idx {_shown(place)} stands there twice"
                seen.add(place)
    except (KeyError, TypeError):
        return 'needs {"questions": [{"idx": …, "answers": [{"idx": …, "label": 0 or 1}]}]}'
    return ""


def _differences(lines: Sequence[Mapping[str, Any]], rows: Sequence[Row]) -> Iterator[str]:
    """Which rows have no answer, which answers no row, and entities that are none of the article's."""
    wanted = {_key(idx) for row in rows for idx in (_nested(row) if isinstance(row, MultiRcRow) else idx_of(row))}
    given = {_key(idx) for line in lines for idx in (_nested_line(line) if "passage" in line else [line["idx"]])}
    if missing := sorted(wanted - given):
        yield f" lacks {len(missing)} of {len(wanted)} answers, such as idx {_shown(missing[0])}"
    if unknown := sorted(given - wanted):
        yield f" answers {len(unknown)} that were not asked, such as idx {_shown(unknown[0])}"
    entities = {query.idx: row.entities for row in rows if isinstance(row, RecordRow) for query in row.queries}
    for line in lines:
        if line["idx"] in entities and line["label"] not in entities[line["idx"]]:
            yield f": idx {line['idx']}: {line['label']!r} is no entity of its article"


def _nested(row: MultiRcRow) -> list[tuple[int, ...]]:
    return [(row.idx, question.idx, answer.idx) for question in row.questions for answer in question.answers]


def _nested_line(line: Mapping[str, Any]) -> list[tuple[int, ...]]:
    try:
        questions = line["passage"]["questions"]
        return [
            (line["idx"], question["idx"], answer["idx"]) for question in questions for answer in question["answers"]
        ]
    except (KeyError, TypeError):
        return []  # told by _nested_problem already


def _key(idx: int | tuple[int, ...]) -> tuple[int, ...]:
    return (idx,) if isinstance(idx, int) else idx


def _shown(idx: tuple[int, ...]) -> str:
    return " › ".join(str(part) for part in idx)
