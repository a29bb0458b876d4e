"""Every row reaches the model in its form, and what the model finds comes back as a prediction."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from superglue_files import line, unlabelled, write_lines

from cypher.apps.superglue.benchmark import TASKS, read_rows
from cypher.apps.superglue.forms import Answers, form_config, label_text, learnable, objective_rows
from cypher.apps.superglue.rows import WscRow
from cypher.apps.superglue.settings import FULL, settings_of
from cypher.config.section import parse
from cypher.tasks.classify import ClassifyRow
from cypher.tasks.classify_span_pair import SpanPairPrediction, SpanPairRow
from cypher.tasks.judge_candidates import JudgeRow
from cypher.tasks.registry import kind_of


def rows_of(key: str, folder: Path, *, labels: bool = True) -> list[Any]:
    lines = [line(key, idx) if labels else unlabelled(key, line(key, idx)) for idx in range(6)]
    return read_rows(TASKS[key], write_lines(folder / "a.jsonl", lines))


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("boolq", ClassifyRow(text="The otter lives near the river 0. It swims all day.",
                              pair="does the otter swim?", labels=("true",))),
        ("cb", ClassifyRow(text="Anna saw the river 0.", pair="Anna saw it", labels=("entailment",))),
        ("rte", ClassifyRow(text="Anna saw the river 0.", pair="Anna saw something.", labels=("entailment",))),
        ("ax-b", ClassifyRow(text="Anna saw the river 0.", pair="Anna saw it.", labels=("entailment",))),
        ("copa", JudgeRow(passage="Anna froze at the river 0.", question="What was the cause of this?",
                          candidates=("It was cold.", "It was warm."), right=(True, False))),
        ("multirc", JudgeRow(passage="The otter met Anna near the river 0. They ate fish.", question="Who met?",
                             candidates=("the otter", "a whale", "Anna"), right=(True, False, True))),
        ("record", JudgeRow(passage="Anna met David near the river 0. Anna was happy.", question="",
                            candidates=("Anna was happy that day", "David was happy that day"), right=(True, False))),
        ("wic", SpanPairRow(text="The otter of the river 0.", pair="A otter of a river.", first=(4, 9), second=(2, 7),
                            label="true")),
        ("wsc", SpanPairRow(text="Anna told the otter about the river 0 because he was happy.",
                            first=(0, 4), second=(46, 48), label="true")),
    ],
)  # fmt: skip
def test_a_row_has_its_form(key: str, expected: object, tmp_path: Path) -> None:
    assert objective_rows(rows_of(key, tmp_path))[0] == expected


@pytest.mark.parametrize("key", TASKS)
def test_certain_answers_come_back_as_the_labels(key: str, tmp_path: Path) -> None:
    rows = rows_of(key, tmp_path)
    found = []
    for made in objective_rows(rows):
        if isinstance(made, JudgeRow):
            assert made.right is not None
            found.append(tuple(3.0 if right else 1.0 for right in made.right))
        else:
            gold = made.label if isinstance(made, SpanPairRow) else made.labels[0]
            logits = tuple(float(label_text(label) == gold) for label in TASKS[key].labels)
            found.append(SpanPairPrediction(label=gold, logits=logits))
    given = Answers(task=TASKS[key], calibration={"threshold": 2.0}).predictions(rows, found)
    if key == "multirc":
        assert given == [tuple(tuple(a.label for a in q.answers) for q in row.questions) for row in rows]
    elif key == "record":
        assert given == [tuple(query.answers[0] for query in row.queries) for row in rows]
    else:
        assert given == [row.label for row in rows]
        assert [type(label) for label in given] == [type(row.label) for row in rows]


@pytest.mark.parametrize("key", ["boolq", "wic"])
def test_both_orders_are_read_and_their_logits_averaged(key: str, tmp_path: Path) -> None:
    rows = rows_of(key, tmp_path)[:2]
    made = objective_rows(rows)
    assert [(one.text, one.pair) for one in made[1::2]] == [(one.pair, one.text) for one in made[::2]]
    if key == "wic":
        assert [one.first for one in made[1::2]] == [one.second for one in made[::2]]
    logits = [(0.0, 1.0), (3.0, 0.0), (2.0, 0.0), (0.0, 3.0)]
    found = [SpanPairPrediction(label="", logits=one) for one in logits]
    assert Answers(task=TASKS[key], calibration={}).predictions(rows, found) == [False, True]


@pytest.mark.parametrize("key", TASKS)
def test_rows_of_test_files_have_the_same_form(key: str, tmp_path: Path) -> None:
    known, unknown = objective_rows(rows_of(key, tmp_path)), objective_rows(rows_of(key, tmp_path, labels=False))
    assert len(known) == len(unknown)
    for first, second in zip(known, unknown, strict=True):
        if isinstance(first, JudgeRow):
            assert (first.passage, first.candidates, second.right) == (second.passage, second.candidates, None)
        else:
            assert (first.text, first.pair) == (second.text, second.pair)
            assert (second.label if isinstance(second, SpanPairRow) else second.labels) is None


def test_a_pronoun_refers_to_one_thing() -> None:
    rows = [
        WscRow(idx=idx, text=text, span1=(idx, idx + 1), span2=span2)
        for idx, (text, span2) in enumerate([("a", (5, 6)), ("a", (5, 6)), ("a", (7, 8)), ("b", (5, 6)), ("b", (5, 6))])
    ]
    logits = [(0.4, 0.6), (0.1, 0.9), (0.4, 0.6), (0.8, 0.2), (0.9, 0.1)]
    found = [SpanPairPrediction(label="", logits=one) for one in logits]
    given = Answers(task=TASKS["wsc"], calibration={}).predictions(rows, found)
    assert given == [False, True, True, False, False]


@pytest.mark.parametrize("key", FULL)
@pytest.mark.parametrize("profile", ["quick", "full"])
def test_every_setting_is_a_valid_objective(key: str, profile: Any) -> None:
    values = form_config(TASKS[key], settings_of(key, profile))
    config = parse(kind_of(values["kind"]).config, values, where="form")
    if values["kind"] == "judge_candidates":
        assert config.right == ("any" if key == "multirc" else "one")
    else:
        assert config.labels == tuple(label_text(label) for label in TASKS[key].labels)


def test_nothing_is_learnt_from_a_choice_without_a_right_one() -> None:
    right = JudgeRow(passage="a", question="b", candidates=("c", "d"), right=(False, True))
    wrong = JudgeRow(passage="a", question="b", candidates=("c", "d"), right=(False, False))
    assert learnable([right, wrong], any_number=False) == [right]
    assert learnable([right, wrong], any_number=True) == [right, wrong]
