"""Numbers on every architecture: scaled in training, on the scale of the data outside; scores equal scipy's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import pearsonr, spearmanr
from text_tasks import ARCHITECTURES, gradients, headed, learn, text_reader, tiny_model

from cypher.config import RegressConfig
from cypher.tasks.regress import Regress, RegressRow

TEXTS = ["the king", "who was it by the river", "a", "in the house of the rising sun at night", "where is it"]
ROWS = [RegressRow(text=text, pair="who", value=1000.0 + 50 * n * n) for n, text in enumerate(TEXTS)]


def make(architecture: str, folder: Path) -> Regress:
    values = np.array([row.value for row in ROWS])
    return Regress(RegressConfig(mean=values.mean(), deviation=values.std()), reader=text_reader(architecture, folder))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_it_learns_numbers_on_their_own_scale(architecture: str, tiny_bert: Path) -> None:
    task = make(architecture, tiny_bert)
    model = headed(task, tiny_model(architecture, tiny_bert))
    loss, whole = gradients(task, model, ROWS, parts=1)
    found, cut = gradients(task, model, ROWS, parts=3)
    assert found == pytest.approx(loss, rel=1e-5)
    for first, second in zip(whole, cut, strict=True):
        torch.testing.assert_close(first, second, atol=1e-5, rtol=1e-4)
    learn(task, model, ROWS, steps=80, rate=1e-2)
    with torch.inference_mode():
        predictions = task.predict(model, ROWS)
        alone = [task.predict(model, [row])[0] for row in ROWS]
    assert alone == pytest.approx(predictions, abs=0.01)
    assert predictions == pytest.approx([row.value for row in ROWS], abs=60)
    assert task.score(ROWS, predictions)["pearson"] > 98


def test_scores_equal_those_of_scipy(tiny_bert: Path) -> None:
    draw = np.random.default_rng(0)
    golds, found = draw.integers(0, 6, 50).astype(float), draw.integers(0, 6, 50) + draw.random(50).round(1)
    scores = make("bert", tiny_bert).score([RegressRow(text="", value=v) for v in golds], found.tolist())
    assert scores["pearson"] == pytest.approx(100 * pearsonr(golds, found)[0])
    assert scores["spearman"] == pytest.approx(100 * spearmanr(golds, found)[0])
    assert scores["mse"] == pytest.approx(((golds - found) ** 2).mean())
    constant = make("bert", tiny_bert).score([RegressRow(text="", value=v) for v in golds], [2.0] * 50)
    assert constant["pearson"] == constant["spearman"] == 0
