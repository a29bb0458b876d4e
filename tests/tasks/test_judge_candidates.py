"""Candidates share a passage and know nothing of each other; losses and thresholds equal what they are defined by."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from cypher.config.judge_candidates import JudgeCandidatesConfig
from cypher.errors import ConfigError
from cypher.models.headed import HeadedModel
from cypher.models.load import load_model
from cypher.tasks.judge_candidates import JudgeCandidates, JudgeRow, best_threshold

PASSAGE = "the otter lives near the river and the heron is in the house"
ROWS = [
    JudgeRow(
        passage=PASSAGE,
        question="where is the heron",
        candidates=("in the house", "at a river", "was it"),
        right=(True, False, False),
    ),
    JudgeRow(passage="the river", question="what is", candidates=("a river", ""), right=(True, True)),
    JudgeRow(passage=PASSAGE * 3, question="who", candidates=("the otter",), right=(False,)),
]


def built(folder: Path, **config: object) -> tuple[HeadedModel, JudgeCandidates]:
    loaded = load_model(str(folder))
    task = JudgeCandidates(
        JudgeCandidatesConfig(**{"max_length": 96, "max_question_tokens": 24, "max_candidate_tokens": 24, **config}),
        tokenizer=loaded.tokenizer,
        special=loaded.special,
    )
    return HeadedModel(loaded.model, task.head(loaded.model)).eval(), task


def logits(model: HeadedModel, task: JudgeCandidates, *rows: JudgeRow) -> list[Tensor]:
    return [torch.tensor(found) for found in task.predict(model, rows)]


def test_a_candidate_is_judged_as_if_it_were_the_only_one(tiny_bert: Path) -> None:
    model, task = built(tiny_bert)
    row = ROWS[0]
    (together,) = logits(model, task, row)
    assert together.std() > 1e-4
    alone = torch.cat(logits(model, task, *(replace(row, candidates=(text,), right=None) for text in row.candidates)))
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)
    (turned,) = logits(model, task, replace(row, candidates=row.candidates[::-1]))
    torch.testing.assert_close(turned.flip(0), together, atol=1e-5, rtol=0)


def test_padding_and_company_change_nothing(tiny_bert: Path) -> None:
    model, task = built(tiny_bert)
    batch = task.collate([example for index, row in enumerate(ROWS) for example in task.encode(row, index=index)])
    together = task._logits(model.head, model.model(batch.inputs), batch)
    apart = torch.cat([found for row in ROWS for found in logits(model, task, row)])
    torch.testing.assert_close(together, apart, atol=1e-5, rtol=0)


def test_the_first_candidate_stands_where_a_pair_would_have_it(tiny_bert: Path) -> None:
    _, task = built(tiny_bert)
    (example,) = task.encode(ROWS[0], index=0)
    inputs = task.collate([example]).inputs
    n_shared, n_first = len(example.shared), len(example.candidates[0])
    assert inputs.positions is not None
    assert inputs.groups is not None
    assert inputs.segment_ids is not None
    assert inputs.positions[0, : n_shared + n_first].tolist() == list(range(n_shared + n_first))
    assert inputs.positions[0, n_shared + n_first] == n_shared
    assert inputs.groups[0].unique(return_counts=True)[1].tolist() == [n_shared, *map(len, example.candidates)]
    words = task.tokenizer.encode(PASSAGE, add_special_tokens=False).ids
    assert inputs.segment_ids[0].tolist().index(1) == len(words) + 2


def test_the_passage_alone_is_cut(tiny_bert: Path) -> None:
    _, task = built(tiny_bert)
    long = replace(ROWS[0], passage=PASSAGE * 9)
    (example,), (short,) = task.encode(long, index=0), task.encode(ROWS[0], index=0)
    assert example.candidates == short.candidates
    assert example.shared[example.question_start :] == short.shared[short.question_start :]
    assert len(example.shared) + max(map(len, example.candidates)) == 96
    assert example.shared[: short.question_start - 1] == short.shared[: short.question_start - 1]
    with pytest.raises(ValueError, match="leaves no passage"):
        JudgeCandidatesConfig(max_length=100, max_question_tokens=50, max_candidate_tokens=50)


@pytest.mark.parametrize("right", ["any", "one"])
def test_the_loss_is_what_it_is_defined_by(right: str, tiny_bert: Path) -> None:
    model, task = built(tiny_bert, right=right)
    rows = [replace(row, right=(True, *row.right[1:])) for row in ROWS if row.right]
    batch = task.collate([example for index, row in enumerate(rows) for example in task.encode(row, index=index)])
    loss = task.step(model, batch)["judge"]
    expected = torch.tensor(0.0)
    for row, found in zip(rows, logits(model, task, *rows), strict=True):
        gold = torch.tensor(row.right)
        if right == "one":
            expected = expected - found.softmax(0)[gold].sum().log()
        else:
            expected = expected - torch.where(gold, found, -found).sigmoid().log().sum()
    torch.testing.assert_close(loss.total, expected, atol=1e-5, rtol=1e-5)
    assert loss.count == task.counts(batch)["judge"] == (3 if right == "one" else 6)
    loss.total.backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


@pytest.mark.parametrize("seed", range(5))
def test_no_threshold_is_better(seed: int, tiny_bert: Path) -> None:
    draw = random.Random(seed)
    sizes = [draw.randint(1, 4) for _ in range(12)]
    found = [[round(draw.gauss(0, 1), 1) for _ in range(size)] for size in sizes]
    right = [tuple(draw.random() < 0.4 for _ in range(size)) for size in sizes]
    rows = [JudgeRow(passage="a", question="b", candidates=("c",) * len(one), right=one) for one in right]
    _, task = built(tiny_bert)
    scores = task.score(rows, found)
    pairs = zip(found, right, strict=True)
    flat = [(logit, truth) for logits_, ones in pairs for logit, truth in zip(logits_, ones, strict=True)]

    def judged(threshold: float) -> float:
        called = [logit >= threshold for logit, _ in flat]
        hits = sum(a and b for a, (_, b) in zip(called, flat, strict=True))
        f1 = 2 * hits / max(1, sum(called) + sum(b for _, b in flat))
        return 100 * min(f1, sum(a == b for a, (_, b) in zip(called, flat, strict=True)) / len(flat))

    best = max(judged(threshold / 20) for threshold in range(-100, 100))
    assert scores["judged"] == pytest.approx(best)
    assert judged(task.calibrate(rows, found)["threshold"]) == pytest.approx(best)
    assert judged(best_threshold(right, found)) == pytest.approx(best)


def test_one_right_candidate_is_the_best_one(tiny_bert: Path) -> None:
    _, task = built(tiny_bert, right="one")
    rows = [replace(ROWS[0], right=(False, True, True)), replace(ROWS[1], right=(True, False))]
    assert task.metric == "accuracy"
    assert task.score(rows, [(0.0, -1.0, 2.0), (-3.0, -2.0)]) == {"accuracy": 50.0}
    assert task.calibrate(rows, [(0.0, -1.0, 2.0), (-3.0, -2.0)]) == {}


def test_models_without_groups_are_not_given_any() -> None:
    from cypher.config import supports

    for model in ("llama", "seq2seq"):
        assert not supports(model=model, adapter="none", task="judge_candidates")
    assert ConfigError
