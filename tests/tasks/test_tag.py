"""Tags of words: at the first token of each, through cuts and padding, and learnt."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from text_tasks import gradients, headed, learn, tiny_model

from cypher.adapters.methods import adapter_of
from cypher.config import TagConfig, adapter_config
from cypher.hub.tokenizer import load_tokenizer, special_tokens
from cypher.tasks.tag import NO_TAG, Tag, TagRow, answer

ROWS = [
    TagRow(words=("who", "was", "the", "king", "of", "river"), tags=("O", "O", "O", "B-PER", "I-PER", "I-PER")),
    TagRow(words=("king",), tags=("B-PER",)),
    TagRow(words=("in", "a", "house", "by", "zurich"), tags=("O", "O", "O", "O", "B-LOC")),
]


def make(folder: Path, **settings: Any) -> Tag:
    config = TagConfig(**{"tags": ("B-LOC", "B-PER", "I-PER", "O"), **settings})
    return Tag(config, tokenizer=load_tokenizer(folder), special=special_tokens(folder))


def test_the_first_token_of_a_word_stands_for_it(tiny_bert: Path) -> None:
    task = make(tiny_bert)
    (example,) = task.encode(ROWS[2], index=7)
    tokens = [task.tokenizer.id_to_token(i) for i in example.token_ids]
    assert [tokens[start] for _, start in example.words] == ["in", "a", "h", "by", "z"]
    tags = task.collate([example]).targets["tags"][0].tolist()
    assert [tag for tag in tags if tag != NO_TAG] == [3, 3, 3, 3, 0]
    assert task.counts(task.collate([example])) == {"tag": 5}


@pytest.mark.parametrize("max_length", [8, 9, 12])
def test_a_long_row_is_cut_between_words_and_every_word_is_tagged_once(max_length: int, tiny_bert: Path) -> None:
    task = make(tiny_bert, max_length=max_length)
    row = TagRow(words=("in", "the", "house", "\u200b", "extraordinarily", "of", "a", "river", "by"))
    parts = task.encode(row, index=0)
    assert [word for part in parts for word, _ in part.words] == list(range(9))
    assert all(len(part.token_ids) <= max_length for part in parts)
    assert len(parts) > 1
    model = headed(task, tiny_model("bert", tiny_bert))
    with torch.inference_mode():
        (prediction,) = task.predict(model, [row])
    assert len(prediction.tags) == 9
    assert all(0 < probability <= 1 for probability in prediction.probabilities)


@pytest.mark.parametrize("adapter", ["none", "prompt"])
def test_it_learns_and_rows_are_tagged_by_themselves(adapter: str, tiny_bert: Path) -> None:
    task, model = make(tiny_bert), tiny_model("bert", tiny_bert)
    if adapter != "none":
        adapter_of(adapter_config({"method": adapter})).attach(model, "own")
    trained = headed(task, model)
    loss, whole = gradients(task, trained, ROWS, parts=1)
    found, cut = gradients(task, trained, ROWS, parts=3)
    assert found == pytest.approx(loss, rel=1e-5)
    for first, second in zip(whole, cut, strict=True):
        torch.testing.assert_close(first, second, atol=1e-5, rtol=1e-4)
    learn(task, trained, ROWS, steps=40, rate=1e-2)
    with torch.inference_mode():
        predictions = task.predict(trained, ROWS)
        alone = [task.predict(trained, [row])[0] for row in ROWS]
    assert [p.tags for p in predictions] == [p.tags for p in alone] == [row.tags for row in ROWS]
    assert task.score(ROWS, predictions) == {"f1": 100, "precision": 100, "recall": 100, "accuracy": 100}
    told = answer(task, predictions[0], {}, ROWS[0])
    assert told["entities"] == [{"type": "PER", "start": 3, "end": 6}]


def test_tags_that_mark_nothing_are_scored_by_words(tiny_bert: Path) -> None:
    task = make(tiny_bert, scheme="none", tags=("NOUN", "OTHER"))
    rows = [TagRow(words=("a", "king"), tags=("OTHER", "NOUN"))]
    prediction = task.predict(headed(task, tiny_model("bert", tiny_bert)).requires_grad_(False), rows)[0]
    assert task.metric == "accuracy"
    assert set(task.score(rows, [prediction])) == {"accuracy"}
    assert "entities" not in answer(task, prediction, {}, rows[0])
