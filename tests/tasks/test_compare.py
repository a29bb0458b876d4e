"""Two stretches get one label, wherever they stand and whatever stands beside them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from sklearn.metrics import accuracy_score, f1_score

from cypher.config.compare import CompareConfig
from cypher.errors import DataError
from cypher.models.load import load_model
from cypher.tasks.compare import Compare, CompareRow
from cypher.train.task import HeadedModel

ROWS = [
    CompareRow(first="the otter is in the river", second="a heron", label="yes"),
    CompareRow(first="what was it", second="the river by the house and the otter by the river", label="no"),
    CompareRow(first="the otter saw it", spans=((4, 9), (14, 16)), label="maybe"),
    CompareRow(first="a river", second="the river is", spans=((2, 7), (4, 9)), label="yes"),
]


def built(folder: Path, **config: object) -> tuple[HeadedModel, Compare]:
    loaded = load_model(str(folder))
    settings = CompareConfig(**{"labels": ("no", "maybe", "yes"), "max_length": 64, **config})
    task = Compare(settings, tokenizer=loaded.tokenizer, special=loaded.special)
    torch.manual_seed(0)
    return HeadedModel(loaded.model, task.head(loaded.model)).eval(), task


def words_of(task: Compare, row: CompareRow) -> list[list[str]]:
    """The tokens of each stretch, read back."""
    (example,) = task.encode(row, index=0)
    found = []
    for first, last in example.stretches:
        ids = example.token_ids[first : last + 1]
        found.append([str(task.tokenizer.id_to_token(token)) for token in ids])
    return found


def test_stretches_are_the_texts_or_the_marked_words(tiny_bert: Path) -> None:
    _, task = built(tiny_bert)

    def tokens(text: str) -> list[str]:
        return list(task.tokenizer.encode(text, add_special_tokens=False).tokens)

    assert words_of(task, ROWS[0]) == [tokens("the otter is in the river"), tokens("a heron")]
    assert words_of(task, ROWS[2]) == [tokens("otter"), tokens("it")]
    assert words_of(task, ROWS[3]) == [tokens("river"), tokens("river")]


def test_padding_and_company_change_nothing(tiny_bert: Path) -> None:
    model, task = built(tiny_bert)
    with torch.inference_mode():
        together = torch.tensor(task.predict(model, ROWS))
        alone = torch.tensor([task.predict(model, [row])[0] for row in ROWS])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)
    assert together.std(0).max() > 1e-5
    torch.testing.assert_close(together.sum(1), torch.ones(4))


def test_the_head_is_what_it_is_defined_by(tiny_bert: Path) -> None:
    model, task = built(tiny_bert)
    examples = [example for index, row in enumerate(ROWS) for example in task.encode(row, index=index)]
    batch = task.collate(examples)
    loss = task.step(model, batch)["label"]
    expected = torch.tensor(0.0)
    for example in examples:
        hidden = model.model(task.collate([example]).inputs).hidden[0]
        a, b = (hidden[first : last + 1].mean(0) for first, last in example.stretches)
        features = torch.cat([hidden[0], a, b, a * b, (a - b).abs()])
        logits = model.head.scores(torch.tanh(model.head.dense(features)))
        expected = expected - logits.log_softmax(0)[example.label]
    torch.testing.assert_close(loss.total, expected, atol=1e-5, rtol=1e-5)
    assert loss.count == task.counts(batch)["label"] == 4


@pytest.mark.parametrize(("n_first", "n_second"), [(90, 3), (3, 90), (90, 90)])
def test_the_longer_text_is_cut_and_the_other_kept(n_first: int, n_second: int, tiny_bert: Path) -> None:
    _, task = built(tiny_bert)
    row = CompareRow(first="the " * n_first, second="river " * n_second)
    (example,) = task.encode(row, index=0)
    assert len(example.token_ids) == 64
    whole = [len(task.tokenizer.encode(text, add_special_tokens=False).ids) for text in (row.first, str(row.second))]
    kept = [last - first + 1 for first, last in example.stretches]
    assert sum(kept) == 61
    assert all(n == full or n >= 30 for n, full in zip(kept, whole, strict=True))


def test_a_marked_word_behind_the_cut_and_an_unknown_label_are_refused(tiny_bert: Path) -> None:
    _, task = built(tiny_bert)
    long = "the " * 80
    with pytest.raises(DataError, match=r"row 3: .* has a marked word behind token 64; raise task\.max_length"):
        task.encode(CompareRow(first=long, spans=((0, 3), (316, 319))), index=3)
    with pytest.raises(DataError, match="label 'none': needs one of no, maybe, yes"):
        task.encode(replace(ROWS[0], label="none"), index=0)


def test_scores_equal_scikit_learn(tiny_bert: Path) -> None:
    _, task = built(tiny_bert, metric="macro_f1")
    golds = ["yes", "no", "no", "yes", "no"]
    found = [(0.1, 0.2, 0.7), (0.6, 0.3, 0.1), (0.2, 0.3, 0.5), (0.5, 0.1, 0.4), (0.9, 0.1, 0.0)]
    given = ["yes", "no", "yes", "no", "no"]
    scores = task.score([CompareRow(first="a", second="b", label=gold) for gold in golds], found)
    macro = f1_score(golds, given, labels=list(task.config.labels), average="macro", zero_division=0)
    assert scores["macro_f1"] == pytest.approx(100 * macro)
    assert scores["accuracy"] == pytest.approx(100 * accuracy_score(golds, given))
    assert task.metric == "macro_f1"
