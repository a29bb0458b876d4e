"""Choosing: candidates of one row compete, whatever the batch; every architecture; from files to answers."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace

from cypher.config import ChooseConfig, Recipe
from cypher.data.table import BadRows
from cypher.errors import DataError
from cypher.hub.tokenizer import SpecialTokens
from cypher.models.bert import Bert, BertConfig
from cypher.models.headed import HeadedModel
from cypher.models.llama import Llama, LlamaConfig
from cypher.models.model import Model
from cypher.models.seq2seq import Seq2Seq, Seq2SeqConfig
from cypher.tasks.choose import Choose, ChooseRow, answer
from cypher.tasks.choose_rows import ROWS
from cypher.tasks.label_calibration import probabilities_of
from cypher.tasks.run import run_recipe
from cypher.tasks.task_folder import load_task
from cypher.tasks.task_kind import Source
from cypher.tasks.text_sequence import TextReader

WORDS = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", *"the river a mill was built by it rain fell why what ran dry".split()]
SIZES = {"vocabulary_size": len(WORDS), "width": 16, "n_heads": 2, "inner_width": 24}
MODELS: dict[str, Callable[[], Model]] = {
    "bert": lambda: Bert(BertConfig(n_layers=2, dropout=0, attention_dropout=0, with_pooler=False, **SIZES)),
    "llama": lambda: Llama(LlamaConfig(n_layers=2, n_key_value_heads=1, **SIZES)),
    "seq2seq": lambda: Seq2Seq(Seq2SeqConfig(n_encoder_layers=1, n_decoder_layers=1, **SIZES)),
}
ROWS_GIVEN = [
    ChooseRow(text="the river ran dry", choices=("rain fell", "it was a mill built by the river"), label=0),
    ChooseRow(text="why", choices=("it", "the mill", "what the rain", "a river was built by it"), label=3),
    ChooseRow(text="the mill was built by the river why", choices=("a", "it ran", "rain"), label=1),
]


def choosing(architecture: str) -> tuple[Choose, HeadedModel]:
    tokenizer = Tokenizer(WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    reader = TextReader(
        tokenizer=tokenizer,
        special=SpecialTokens(cls_id=1, sep_id=2, pad_id=0, mask_id=None),
        segments=architecture == "bert",
        with_source=architecture == "seq2seq",
        max_length=14,
    )
    task, model = Choose(ChooseConfig(max_length=14), reader=reader), MODELS[architecture]()
    headed = HeadedModel(model, task.head(model)).eval()
    torch.manual_seed(3)
    for parameter in headed.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return task, headed


def score_alone(task: Choose, model: HeadedModel, text: str, choice: str) -> float:
    """One candidate in a batch of its own."""
    sequence = task.reader.read(text, choice, row=0)
    return model(task.reader.inputs([sequence]))[0].item()


@pytest.mark.parametrize("architecture", MODELS)
def test_the_loss_is_that_of_each_rows_own_softmax(architecture: str) -> None:
    task, model = choosing(architecture)
    examples = [example for index, row in enumerate(ROWS_GIVEN) for example in task.encode(row, index=index)]
    batch = task.collate(examples)
    expected = 0.0
    for row in ROWS_GIVEN:
        scores = [score_alone(task, model, row.text, choice) for choice in row.choices]
        assert row.label is not None
        expected += math.log(sum(map(math.exp, scores))) - scores[row.label]
    loss = task.step(model, batch)["choice"]
    assert (loss.count, dict(task.counts(batch))) == (3, {"choice": 3})
    assert loss.total.item() == pytest.approx(expected, abs=1e-4)
    parts = [task.step(model, task.collate([example]))["choice"] for example in examples]
    assert sum(part.total.item() for part in parts) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("architecture", MODELS)
def test_predictions_do_not_depend_on_the_company_of_a_row(architecture: str) -> None:
    task, model = choosing(architecture)
    together = task.predict(model, ROWS_GIVEN)
    backwards = task.predict(model, ROWS_GIVEN[::-1])[::-1]
    for row, one, other in zip(ROWS_GIVEN, together, backwards, strict=True):
        (alone,) = task.predict(model, [row])
        assert len(one.logits) == len(row.choices)
        assert one.choice == max(range(len(one.logits)), key=one.logits.__getitem__)
        for found in (other, alone):
            assert found.logits == pytest.approx(one.logits, abs=1e-5)


def test_the_temperature_makes_the_right_candidates_likelier() -> None:
    task, model = choosing("bert")
    predictions = task.predict(model, ROWS_GIVEN)

    def likelihood(temperature: float) -> float:
        return sum(
            math.log(probabilities_of(np.array(found.logits), temperature=temperature, multi_label=False)[row.label])
            for row, found in zip(ROWS_GIVEN, predictions, strict=True)
        )

    fitted = task.calibrate(ROWS_GIVEN, predictions)["temperature"]
    assert all(likelihood(fitted) >= likelihood(other) - 1e-6 for other in (0.2, 0.5, 1.0, 2.0, 5.0))
    told = answer(task, predictions[1], {"temperature": fitted}, ROWS_GIVEN[1])
    assert told["prediction"] == ROWS_GIVEN[1].choices[told["choice"]]
    assert sum(told["probabilities"]) == pytest.approx(1)
    assert told["probability"] == max(told["probabilities"])


def read(path: Path, **columns: str) -> list[ChooseRow]:
    source = Source(path=path, columns=columns, with_targets=True, bad=BadRows())
    return [record.row for record in ROWS.records(ChooseConfig(), source)]


def test_candidates_come_as_a_list_or_in_columns_of_their_own(tmp_path: Path) -> None:
    expected = [ChooseRow(text="rain", choices=("a", "b"), label=1)]
    (tmp_path / "a.jsonl").write_text('{"text": "rain", "choices": ["a", "b"], "label": 1}\n')
    (tmp_path / "b.jsonl").write_text('{"premise": "rain", "c1": "a", "c2": "b", "label": "b"}\n')
    (tmp_path / "c.csv").write_text('text,choices,label\nrain,"[""a"", ""b""]",1\n')
    assert read(tmp_path / "a.jsonl") == expected
    assert read(tmp_path / "b.jsonl", text="premise", choice_1="c1", choice_2="c2") == expected
    assert read(tmp_path / "c.csv") == expected


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"text": "t", "choices": ["a"], "label": 0}, "line 1 has 1 choices: needs 2 or more"),
        ({"text": "t", "choices": "a or b", "label": 0}, "choices is no list"),
        ({"text": "t", "choices": ["a", 3], "label": 0}, "a choice is a int"),
        ({"text": "t", "choices": ["a", "b"], "label": 2}, "label is 2: needs 0 to 1"),
        ({"text": "t", "choices": ["a", "b"], "label": True}, "label is True"),
        ({"text": "t", "choices": ["a", "a"], "label": "a"}, "label is 'a'"),
        ({"text": "t", "choices": ["a", "b"]}, 'has no "label"'),
        ({"text": " ", "choices": ["a", "b"], "label": 0}, "text is empty"),
    ],
)
def test_a_row_that_cannot_be_read_is_told_with_its_line(values: dict[str, Any], said: str, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(values) + "\n")
    with pytest.raises(DataError) as caught:
        read(path)
    assert said in str(caught.value)
    assert f"{path}, line 1" in str(caught.value)


def test_a_recipe_learns_to_choose_and_leaves_what_it_learnt(tmp_path: Path, tiny_bert: Path) -> None:
    """The right candidate is the one that begins like the text."""
    lines = []
    for number in range(96):
        word = "abcdefgh"[number % 8]
        choices = [word, "abcdefgh"[(number % 8 + 1 + number // 8 % 7) % 8]]
        label = number // 3 % 2
        lines.append(json.dumps({"text": word, "choices": choices[:: 1 if label == 0 else -1], "label": label}))
    (tmp_path / "rows.jsonl").write_text("\n".join(lines))
    recipe = Recipe.from_toml(
        f"""
        [model]
        name = "{tiny_bert}"
        [task]
        kind = "choose"
        max_length = 16
        [data]
        train = ["{tmp_path / "rows.jsonl"}"]
        development = ["{tmp_path / "rows.jsonl"}"]
        [train]
        epochs = 20
        batch_size = 16
        learning_rate = 2e-3
        evaluations_per_epoch = 1
        [precision]
        compute = "fp32"
        """
    )
    run = run_recipe(recipe, folder=tmp_path / "run")
    assert run.result.scores["accuracy"] > 90
    trained = load_task(run.folder / "task")
    assert isinstance(trained.task, Choose)
    rows = read(tmp_path / "rows.jsonl")
    with torch.inference_mode():
        scores = trained.task.score(rows, trained.task.predict(trained.model, rows))
    assert scores["accuracy"] == pytest.approx(run.result.scores["accuracy"], abs=2)
    assert trained.calibration["temperature"] > 0


@pytest.mark.real_data
def test_every_row_of_copa_is_read(data_folder: Path) -> None:
    """The choice of plausible alternatives as it is published, a column for each of two candidates."""
    path = data_folder / "superglue_full/COPA/val.jsonl.gz"
    rows = read(path, text="premise", choice_1="choice1", choice_2="choice2")
    assert (len(rows), sum(row.label == 1 for row in rows)) == (100, 45)
    assert rows[0].choices == ("The toilet filled with water.", "Water flowed from the spout.")
