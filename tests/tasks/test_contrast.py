"""Contrast of texts: the formula, equal texts, the gradient cache, ranks."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.stats import spearmanr

from cypher.config import EmbedConfig, TrainConfig
from cypher.data.batch import pad_inputs
from cypher.errors import ConfigError, DataError
from cypher.models.headed import HeadedModel
from cypher.models.load import Dropout, load_model
from cypher.tasks.contrast import Contrast, EmbedRow, contrast_loss
from cypher.tasks.correlation import spearman
from cypher.tasks.rank_scores import ranks_of
from cypher.train.loop import train
from cypher.train.progress import read_metrics

ROWS = [
    EmbedRow(
        first=f"where is number {n}", second=f"{n} is in the {'a' * n} house", negatives=("by the road",) * (n % 2)
    )
    for n in range(9)
]


def parts_of(folder: Path, *, dropout: float = 0.0, **settings: Any) -> tuple[HeadedModel, Contrast]:
    loaded = load_model(str(folder), dropout=Dropout(dropout=dropout))
    task = Contrast(EmbedConfig(max_length=32, **settings), tokenizer=loaded.tokenizer, special=loaded.special)
    return HeadedModel(loaded.model, task.head(loaded.model)).eval(), task


def batch_of(task: Contrast, rows: list[EmbedRow] = ROWS) -> Any:
    return task.collate([example for index, row in enumerate(rows) for example in task.encode(row, index=index)])


def test_loss_is_the_formula() -> None:
    queries, candidates = (F.normalize(torch.randn(n, 6, dtype=torch.float64), dim=-1) for n in (4, 7))
    found = contrast_loss(queries, candidates, torch.arange(4), torch.arange(7), temperature=0.1)
    expected = 0.0
    for query in range(4):
        scores = [math.exp(float(queries[query] @ candidate) / 0.1) for candidate in candidates]
        expected -= math.log(scores[query] / sum(scores))
    assert float(found) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("query_text", "candidate_text", "without"),
    [
        ([0, 1, 2], [3, 4, 3], {0: [2], 2: [0]}),  # the same answer to two questions
        ([0, 1, 0], [3, 4, 5], {0: [2], 2: [0]}),  # two answers to one question
        ([0, 1, 0], [3, 4, 4], {0: [1, 2], 1: [2], 2: [0, 1]}),  # both: whatever belongs to any row of that question
        ([0, 1, 2], [3, 4, 5, 4], {1: [3]}),  # a hard negative that is the answer
    ],
)
def test_right_answers_are_no_negatives(
    query_text: list[int], candidate_text: list[int], without: dict[int, list[int]]
) -> None:
    queries = F.normalize(torch.randn(len(query_text), 6), dim=-1)
    candidates = F.normalize(torch.randn(len(candidate_text), 6), dim=-1)
    found = contrast_loss(queries, candidates, torch.tensor(query_text), torch.tensor(candidate_text), temperature=0.5)
    expected = 0.0
    for query in range(len(query_text)):
        kept = [place for place in range(len(candidate_text)) if place not in without.get(query, [])]
        expected -= float((queries[query] @ candidates[kept].T / 0.5).log_softmax(0)[kept.index(query)])
    assert float(found) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("pooling", ["mean", "first", "last"])
def test_step_is_the_loss_of_texts_encoded_alone(tiny_bert: Path, pooling: str) -> None:
    model, task = parts_of(tiny_bert, pooling=pooling, symmetric=True)
    losses = task.step(model, batch_of(task))
    vectors = {}
    for text in {text for row in ROWS for text in (row.first, row.second, *row.negatives)}:
        ids = [
            task.special.cls_id,
            *task.tokenizer.encode(text, add_special_tokens=False).ids[:30],
            task.special.sep_id,
        ]
        hidden = model.model(pad_inputs([ids], pad_id=0)).hidden[0]
        vectors[text] = F.normalize({"mean": hidden.mean(0), "first": hidden[0], "last": hidden[-1]}[pooling], dim=-1)
    first, second = (torch.stack([vectors[getattr(row, name)] for row in ROWS]) for name in ("first", "second"))
    negatives = [vectors[text] for row in ROWS for text in row.negatives]
    own = torch.arange(9)
    there = F.cross_entropy(first @ torch.cat([second, torch.stack(negatives)]).T / 0.05, own, reduction="sum")
    back = F.cross_entropy(second @ first.T / 0.05, own, reduction="sum")
    torch.testing.assert_close(losses["contrast"].total, there, atol=1e-3, rtol=1e-4)
    torch.testing.assert_close(losses["contrast_back"].total, back, atol=1e-3, rtol=1e-4)
    assert {name: (term.count, term.weight) for name, term in losses.items()} == {
        "contrast": (9, 0.5), "contrast_back": (9, 0.5)
    }  # fmt: skip


@pytest.mark.parametrize(("parts", "dropout"), [(2, 0.0), (4, 0.0), (1, 0.2)])
def test_the_gradient_cache_gives_the_gradients_of_the_whole(tiny_bert: Path, parts: int, dropout: float) -> None:
    found = []
    for settings in ({}, {"gradient_cache": True, "parts": parts}):
        model, task = parts_of(tiny_bert, dropout=dropout, **settings)
        model.train()
        torch.manual_seed(3)
        total = task.step(model, batch_of(task))["contrast"].total
        # The pooler is not on the way from a text to its vector.
        gradients = torch.autograd.grad(total, list(model.parameters()), allow_unused=True)
        found.append((total, *(gradient for gradient in gradients if gradient is not None)))
    assert len(found[0]) == len(found[1]) > 10
    for whole, cached in zip(*found, strict=True):
        torch.testing.assert_close(cached, whole, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("threads_number", [1, 2])
def test_neither_threads_nor_the_cache_change_a_run(
    tiny_bert: Path, tmp_path: Path, threads: Any, threads_number: int
) -> None:
    threads(threads_number)
    curves = []
    for name, accumulation in (("whole", 1), ("cut", 3)):
        model, task = parts_of(tiny_bert, gradient_cache=accumulation > 1, parts=accumulation)
        config = TrainConfig(epochs=3, batch_size=6, accumulation=accumulation, learning_rate=1e-3)
        train(model, task, ROWS, ROWS, config=config, dtype=torch.float32, folder=tmp_path / name)
        curves.append([row["loss"] for row in read_metrics(tmp_path / name / "metrics.jsonl") if "loss" in row])
    assert curves[1] == pytest.approx(curves[0], abs=1e-4)


def test_a_batch_cut_without_a_cache_is_refused(tiny_bert: Path) -> None:
    with pytest.raises(ConfigError, match=r"texts of its part alone.*gradient_cache"):
        parts_of(tiny_bert, parts=2)


def test_ranks_and_correlation_equal_their_definitions() -> None:
    similarities = np.array([[0.9, 0.8, 0.7], [0.2, 0.2, 0.2], [0.1, 0.5, 0.9]])
    assert ranks_of(similarities, [2, 0, 0], also_right=[{0, 2}, {0}, {0}]).tolist() == [2, 3, 3]
    one, other = np.array([1.0, 2.0, 2.0, 5.0, 0.0]), np.array([3.0, 1.0, 1.0, 9.0, 4.0])
    assert spearman(one, other) == pytest.approx(spearmanr(one, other).statistic)
    assert spearman(one, np.zeros(5)) == 0.0


def test_scores_of_pairs_and_of_judged_pairs(tiny_bert: Path) -> None:
    model, task = parts_of(tiny_bert)
    judged = [EmbedRow(first=row.first, second=row.second, score=float(n)) for n, row in enumerate(ROWS)]
    itself = [EmbedRow(first=row.first, second=row.first) for row in ROWS]
    with torch.inference_mode():
        found = task.score(itself, task.predict(model, itself))
        assert found == {"recall@1": 100, "recall@5": 100, "recall@10": 100, "mrr": 100}
        alone = task.score(judged, task.predict(model, judged))
        both = task.score([*itself, *judged], task.predict(model, [*itself, *judged]))
    assert both == {**found, "spearman": alone["spearman"]}
    assert task.encode(judged[0], index=0) == []
    with pytest.raises(DataError, match="no held-out row"):
        task.score([], [])
