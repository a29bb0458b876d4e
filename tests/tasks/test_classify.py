"""Labels on every architecture: what a row gets depends on itself alone, the loss rule holds, and it learns."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from text_tasks import ARCHITECTURES, gradients, headed, learn, text_reader, tiny_model

from cypher.adapters.methods import adapter_of
from cypher.config import ClassifyConfig, adapter_config
from cypher.tasks.classify import Classify, ClassifyRow, answer

TEXTS = ["the king", "who was it by the river", "a", "in the house of the rising sun at night", "where is it"]
LABELS = ("far", "near", "no")
ROWS = [ClassifyRow(text=text, labels=(LABELS[n % 3],)) for n, text in enumerate(TEXTS)]
PAIRS = [
    ClassifyRow(text=row.text, pair=TEXTS[n - 1], labels=LABELS[: n % 3]) for n, row in enumerate(ROWS)
]  # none, one and two labels


def make(architecture: str, folder: Path, *, max_length: int = 64, **settings: Any) -> Classify:
    config = ClassifyConfig(**{"labels": LABELS, "label_counts": (5, 2, 1), **settings})
    return Classify(config, reader=text_reader(architecture, folder, max_length))


@pytest.mark.parametrize("adapter", ["none", "prompt", "prefix", "lora"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_row_is_judged_by_itself(architecture: str, adapter: str, tiny_bert: Path) -> None:
    task, model = make(architecture, tiny_bert, multi_label=True), tiny_model(architecture, tiny_bert)
    if adapter != "none":
        adapter_of(adapter_config({"method": adapter})).attach(model, "own")
    trained = headed(task, model)
    with torch.inference_mode():
        together = task.predict(trained, PAIRS)
        alone = [task.predict(trained, [row])[0] for row in PAIRS]
        backwards = task.predict(trained, PAIRS[::-1])[::-1]
    for other in (alone, backwards):
        for first, second in zip(together, other, strict=True):
            assert first.logits == pytest.approx(second.logits, abs=1e-5)
    assert len({prediction.logits for prediction in together}) == len(PAIRS)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"class_weights": "balanced"},
        {"class_weights": "effective_number", "focal_gamma": 2.0},
        {"logit_adjustment": 1.0},
        {"multi_label": True, "class_weights": (0.5, 2.0, 3.0), "focal_gamma": 1.0},
    ],
)
def test_cutting_a_batch_changes_neither_loss_nor_gradient(settings: dict[str, Any], tiny_bert: Path) -> None:
    task = make("bert", tiny_bert, **settings)
    model = headed(task, tiny_model("bert", tiny_bert))
    rows = PAIRS if settings.get("multi_label") else ROWS
    loss, whole = gradients(task, model, rows, parts=1)
    for parts in (2, 3):
        found, cut = gradients(task, model, rows, parts=parts)
        assert found == pytest.approx(loss, rel=1e-5)
        for first, second in zip(whole, cut, strict=True):
            torch.testing.assert_close(first, second, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_it_learns_which_text_is_which(architecture: str, tiny_bert: Path) -> None:
    task = make(architecture, tiny_bert)
    model = headed(task, tiny_model(architecture, tiny_bert))
    learn(task, model, ROWS, steps=40, rate=1e-2)
    with torch.inference_mode():
        predictions = task.predict(model, ROWS)
    assert task.score(ROWS, predictions)["accuracy"] == 100
    assert [prediction.labels for prediction in predictions] == [row.labels for row in ROWS]
    assert all(sum(prediction.probabilities) == pytest.approx(1) for prediction in predictions)


def test_several_labels_are_chosen_by_thresholds(tiny_bert: Path) -> None:
    task = make("bert", tiny_bert, multi_label=True)
    model = headed(task, tiny_model("bert", tiny_bert))
    learn(task, model, PAIRS, steps=40, rate=1e-2)
    with torch.inference_mode():
        predictions = task.predict(model, PAIRS)
    calibration = task.calibrate(PAIRS, predictions)
    assert len(calibration["thresholds"]) == 3
    assert task.score_calibrated(PAIRS, predictions, calibration)["accuracy"] == 100
    nothing = {**calibration, "thresholds": [1.1] * 3}
    assert task.score_calibrated(PAIRS, predictions, nothing)["micro_f1"] == 0
    told = answer(task, predictions[2], calibration, PAIRS[2])
    assert told["prediction"] == ["far", "near"]
    assert len(told["probability"]) == 2


def test_what_is_told_is_calibrated(tiny_bert: Path) -> None:
    task = make("bert", tiny_bert)
    model = headed(task, tiny_model("bert", tiny_bert))
    prediction = task.predict(model.requires_grad_(False), ROWS[:1])[0]
    plain, flat = (answer(task, prediction, {"temperature": t}, ROWS[0]) for t in (1.0, 1e6))
    assert plain["prediction"] == flat["prediction"] == prediction.labels[0]
    assert plain["probability"] == pytest.approx(max(prediction.probabilities))
    assert flat["probability"] == pytest.approx(1 / 3, abs=1e-4)
    assert task.predict(model, []) == []


def test_a_pair_is_two_segments_and_cut_where_it_is_longer(tiny_bert: Path) -> None:
    task = make("bert", tiny_bert, max_length=9)
    (example,) = task.encode(ClassifyRow(text="in the house of the king by the river", pair="who was"), index=0)
    inputs = task.collate([example]).inputs
    tokens = [task.reader.tokenizer.id_to_token(i) for i in example.sequence.token_ids]
    assert tokens == ["[CLS]", "in", "the", "h", "##o", "[SEP]", "who", "was", "[SEP]"]
    assert inputs.segment_ids is not None
    assert inputs.segment_ids.tolist() == [[0] * 6 + [1] * 3]
