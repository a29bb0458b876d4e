"""What is written is what the leaderboard reads, to the letter, and the check sees every wrong one."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from superglue_files import line, unlabelled, write_lines

from cypher.apps.superglue.benchmark import TASKS, read_rows
from cypher.apps.superglue.check_submission import check_archive
from cypher.apps.superglue.predictions import majority
from cypher.apps.superglue.submission import (
    file_name,
    jsonl,
    predictions_from_lines,
    submission_lines,
    write_archive,
)
from cypher.errors import DataError


def rows_of(folder: Path, key: str) -> list[Any]:
    return read_rows(TASKS[key], write_lines(folder / f"{key}.jsonl", [line(key, idx) for idx in range(3, 9)]))


def golds(key: str, rows: list[Any]) -> list[Any]:
    """The labels themselves as predictions."""
    if key == "multirc":
        return [tuple(tuple(a.label for a in q.answers) for q in row.questions) for row in rows]
    if key == "record":
        return [tuple(query.answers[0] for query in row.queries) for row in rows]
    return [row.label for row in rows]


@pytest.mark.parametrize("key", TASKS)
def test_predictions_survive_the_way_through_a_file(key: str, tmp_path: Path) -> None:
    rows = rows_of(tmp_path, key)
    lines = [json.loads(text) for text in jsonl(submission_lines(TASKS[key], rows, golds(key, rows))).splitlines()]
    assert predictions_from_lines(TASKS[key], rows, lines) == golds(key, rows)


LINES = {
    "boolq": {"idx": 4, "label": "true"},
    "cb": {"idx": 4, "label": "contradiction"},
    "copa": {"idx": 4, "label": 0},
    "multirc": {
        "idx": 4,
        "passage": {
            "questions": [
                {
                    "idx": 40,
                    "answers": [{"idx": 400, "label": 1}, {"idx": 401, "label": 0}, {"idx": 402, "label": 1}],
                },
                {"idx": 41, "answers": [{"idx": 410, "label": 1}, {"idx": 411, "label": 0}]},
            ]
        },
    },
    "record": {"idx": 5004, "label": "Emil"},
    "rte": {"idx": 4, "label": "entailment"},
    "wic": {"idx": 4, "label": "true"},
    "wsc": {"idx": 4, "label": "True"},
    "ax-b": {"idx": 4, "label": "entailment"},
    "ax-g": {"idx": 4, "label": "entailment"},
}


@pytest.mark.parametrize("key", TASKS)
def test_a_line_is_written_to_the_letter(key: str, tmp_path: Path) -> None:
    rows = rows_of(tmp_path, key)
    written = submission_lines(TASKS[key], rows, golds(key, rows))[1]
    assert json.dumps(written) == json.dumps(LINES[key])


@pytest.fixture
def lines_of(tmp_path: Path) -> dict[str, list[dict[str, Any]]]:
    return {key: submission_lines(TASKS[key], rows, golds(key, rows)) for key, rows in _all_rows(tmp_path).items()}


def _all_rows(folder: Path) -> dict[str, list[Any]]:
    return {key: rows_of(folder, key) for key in TASKS}


def test_ten_files_lie_at_the_top_and_the_check_finds_nothing(tmp_path: Path, lines_of: dict) -> None:
    path = write_archive(tmp_path / "submission.zip", lines_of)
    with zipfile.ZipFile(path) as archive:
        assert sorted(archive.namelist()) == sorted(
            f"{name}.jsonl"
            for name in ("AX-b", "AX-g", "BoolQ", "CB", "COPA", "MultiRC", "RTE", "ReCoRD", "WSC", "WiC")
        )
    assert check_archive(path, _all_rows(tmp_path)) == []
    assert path.read_bytes() == write_archive(tmp_path / "again.zip", lines_of).read_bytes()


def _change(key: str, change: Callable[[list[Any]], Any]) -> Callable[[dict[str, Any]], None]:
    def apply(lines_of: dict[str, Any]) -> None:
        change(lines_of[key])

    return apply


WRONG = {
    "case of WSC": (_change("wsc", lambda ls: ls[0].update(label="true")), 'WSC.jsonl, line 1: label "true"; needs on'),
    "case of BoolQ": (_change("boolq", lambda ls: ls[0].update(label="True")), 'BoolQ.jsonl, line 1: label "True"'),
    "a bool": (_change("wic", lambda ls: ls[1].update(label=True)), "WiC.jsonl, line 2: label true; needs one of"),
    "text of COPA": (_change("copa", lambda ls: ls[0].update(label="0")), 'COPA.jsonl, line 1: label "0"; needs one'),
    "idx as text": (_change("record", lambda ls: ls[0].update(idx="5003")), 'ReCoRD.jsonl, line 1: idx "5003" is no'),
    "no entity": (_change("record", lambda ls: ls[0].update(label="Zoe")), "ReCoRD.jsonl: idx 5003: 'Zoe' is no entit"),
    "label of RTE": (_change("rte", lambda ls: ls[0].update(label="neutral")), 'RTE.jsonl, line 1: label "neutral"'),
    "a row less": (_change("cb", lambda ls: ls.pop()), "CB.jsonl lacks 1 of 6 answers, such as idx 8"),
    "twice": (_change("cb", lambda ls: ls.append(ls[0])), "CB.jsonl: idx 3 stands there twice"),
    "not asked": (
        _change("ax-b", lambda ls: ls.append({**ls[0], "idx": 99})),
        "AX-b.jsonl answers 1 that were not asked, such",
    ),
    "a key more": (_change("ax-g", lambda ls: ls[0].update(score=1)), "AX-g.jsonl, line 1: needs the keys idx and l"),
    "flat": (_change("multirc", lambda ls: ls[0].update(passage={})), "MultiRC.jsonl, line 1: needs"),
    "an answer less": (
        _change("multirc", lambda ls: ls[0]["passage"]["questions"][0]["answers"].pop()),
        "MultiRC.jsonl lacks 1 of 30 answers, such as idx 3 › 30 › 302",
    ),
    "label of an answer": (
        _change("multirc", lambda ls: ls[0]["passage"]["questions"][0]["answers"][0].update(label="1")),
        'MultiRC.jsonl, line 1: answer label "1"; needs 0 or 1',
    ),
    "empty": (_change("boolq", lambda ls: ls.clear()), "BoolQ.jsonl has no lines"),
}


@pytest.mark.parametrize("name", WRONG)
def test_every_rule_is_checked(name: str, tmp_path: Path, lines_of: dict) -> None:
    change, problem = WRONG[name]
    rows = _all_rows(tmp_path)
    change(lines_of)
    problems = check_archive(write_archive(tmp_path / "submission.zip", lines_of), rows)
    assert problems
    assert problems[0].startswith(problem)


def test_files_that_are_missing_misplaced_or_strange_are_told(tmp_path: Path) -> None:
    path = tmp_path / "submission.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("answers/CB.jsonl", "{}\n")
        archive.writestr("RTE.jsonl", "not json\n")
    problems = check_archive(path)
    assert "CB.jsonl is missing at the top level" in problems
    assert "answers/CB.jsonl does not belong in a submission" in problems
    assert "RTE.jsonl, line 1 is not JSON" in problems
    (tmp_path / "none.zip").write_bytes(b"no zip")
    with pytest.raises(DataError, match="cannot be read as a zip"):
        check_archive(tmp_path / "none.zip")


def test_without_rows_the_official_number_of_lines_is_asked_for(tmp_path: Path, lines_of: dict) -> None:
    problems = check_archive(write_archive(tmp_path / "submission.zip", lines_of))
    assert "CB.jsonl has 6 lines; needs one for each idx from 0 to 249 of the test file" in problems
    assert not any(problem.startswith(("MultiRC", "ReCoRD")) for problem in problems)


def test_rows_without_labels_are_answered_too(tmp_path: Path) -> None:
    for key, task in TASKS.items():
        known = rows_of(tmp_path, key)
        bare = read_rows(
            task, write_lines(tmp_path / "bare.jsonl", [unlabelled(key, line(key, idx)) for idx in (8, 9)])
        )
        assert file_name(task) == f"{task.name}.jsonl"
        assert len(submission_lines(task, bare, majority(task, known).predict(bare))) == 2
