"""Labels for two spans: where their tokens are, what the head reads, every architecture, from files to answers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace

from cypher.config import ClassifySpanPairConfig, Recipe
from cypher.data.table import BadRows
from cypher.errors import DataError
from cypher.hub.tokenizer import SpecialTokens
from cypher.models.bert import Bert, BertConfig
from cypher.models.headed import HeadedModel
from cypher.models.llama import Llama, LlamaConfig
from cypher.models.load import load_model
from cypher.models.model import Encoded, Model
from cypher.models.seq2seq import Seq2Seq, Seq2SeqConfig
from cypher.tasks.classify_span_pair import ClassifySpanPair, SpanPairHead, SpanPairRow, answer
from cypher.tasks.run import run_recipe
from cypher.tasks.span_pair_rows import ROWS
from cypher.tasks.span_places import find_spans
from cypher.tasks.task_folder import load_task
from cypher.tasks.task_kind import Source
from cypher.tasks.text_sequence import TextReader

BORDERS = ("start", "end")
WORDS = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", *"the river bank of a mill was built by it rain fell on cold".split()]
SIZES = {"vocabulary_size": len(WORDS), "width": 16, "n_heads": 2, "inner_width": 24}
MODELS: dict[str, Callable[[], Model]] = {
    "bert": lambda: Bert(BertConfig(n_layers=2, dropout=0, attention_dropout=0, with_pooler=False, **SIZES)),
    "llama": lambda: Llama(LlamaConfig(n_layers=2, n_key_value_heads=1, **SIZES)),
    "seq2seq": lambda: Seq2Seq(Seq2SeqConfig(n_encoder_layers=1, n_decoder_layers=1, **SIZES)),
}


def reader(architecture: str = "bert", *, max_length: int = 24) -> TextReader:
    tokenizer = Tokenizer(WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    return TextReader(
        tokenizer=tokenizer,
        special=SpecialTokens(cls_id=1, sep_id=2, pad_id=0, mask_id=None),
        segments=architecture == "bert",
        with_source=architecture == "seq2seq",
        max_length=max_length,
    )


def row(text: str, first: str, second: str, *, pair: str | None = None, label: str | None = None) -> SpanPairRow:
    """A row whose spans are the first and the last place of two words."""
    there = text if pair is None else pair
    start, other = text.index(first), there.rindex(second)
    return SpanPairRow(
        text=text, pair=pair, first=(start, start + len(first)), second=(other, other + len(second)), label=label
    )


GIVEN = [
    row("the bank of the river", "bank", "river", label="no"),
    row("the mill was built by the river and it fell", "the mill", "it", label="yes"),
    row("rain fell on the bank", "bank", "a bank", pair="a bank was built by a bank on the cold river", label="no"),
]


def marking(architecture: str) -> tuple[ClassifySpanPair, HeadedModel]:
    config = ClassifySpanPairConfig(labels=("no", "yes"), max_length=24)
    task, model = ClassifySpanPair(config, reader=reader(architecture)), MODELS[architecture]()
    headed = HeadedModel(model, task.head(model)).eval()
    torch.manual_seed(3)
    for parameter in headed.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return task, headed


def words_at(read: TextReader, token_ids: tuple[int, ...], span: tuple[int, int]) -> str:
    return " ".join(WORDS[token] for token in token_ids[slice(*span)])


@pytest.mark.parametrize("max_length", [16, 24, 64])
@pytest.mark.parametrize("pair", [False, True])
@pytest.mark.parametrize(("before", "after"), [(0, 0), (9, 0), (0, 40), (40, 3), (30, 30)])
def test_spans_are_found_and_never_cut_away(before: int, after: int, pair: bool, max_length: int) -> None:
    around = ("rain fell on " * 20).split()
    text = " ".join([*around[:before], "the", "cold", "mill", "by", "the", "river", "bank", *around[:after]])
    given = row(text, "cold mill", "river", pair=f"it was built on a river {text}" if pair else None)
    read = reader(max_length=max_length)
    found = find_spans(read, given.text, given.pair, given.first, given.second, row=0, place="here")
    ids = found.sequence.token_ids
    assert len(ids) <= max_length
    assert words_at(read, ids, found.first) == "cold mill"
    assert words_at(read, ids, found.second) == "river"
    if pair:
        assert found.first[1] < found.sequence.second_start <= found.second[0]


def test_a_short_text_leaves_its_room_to_the_long_one() -> None:
    long = "rain fell on " * 20 + "the river " + "rain fell on " * 20
    read = reader(max_length=24)
    given = row("the bank", "bank", "river", pair=long)
    found = find_spans(read, given.text, given.pair, given.first, given.second, row=0, place="here")
    assert 22 <= len(found.sequence.token_ids) <= 24


@pytest.mark.parametrize("swapped", [False, True])
@pytest.mark.parametrize("max_length", [16, 24])
def test_of_spans_far_apart_what_is_between_them_goes(swapped: bool, max_length: int) -> None:
    far = "it was the bank of " + "rain fell on " * 20 + "a river by the mill"
    bank, river = (11, 15), (far.index("river"), far.index("river") + 5)
    read = reader(max_length=max_length)
    first, second = (river, bank) if swapped else (bank, river)
    found = find_spans(read, far, None, first, second, row=0, place="here")
    ids = found.sequence.token_ids
    assert max_length - 2 <= len(ids) <= max_length
    seen = [words_at(read, ids, found.first), words_at(read, ids, found.second)]
    assert seen == (["river", "bank"] if swapped else ["bank", "river"])
    assert words_at(read, ids, (0, len(ids))).startswith("[CLS] it was the bank of rain")


def test_a_span_longer_than_its_room_and_one_without_a_token_are_told() -> None:
    long = "the bank " + "rain fell on " * 20 + "river"
    for pair, room in ((None, 11), ("it", 20)):
        second = (4, 8) if pair is None else (0, 2)
        with pytest.raises(DataError, match=rf"there: a span is longer than the {room} tokens.*raise task.max_length"):
            find_spans(reader(), long, pair, (9, 200), second, row=0, place="there")
    with pytest.raises(DataError, match="there: characters 3 to 4 hold no token"):
        find_spans(reader(), "the bank", None, (3, 4), (4, 8), row=0, place="there")


@pytest.mark.parametrize("architecture", MODELS)
def test_the_head_reads_the_row_the_means_of_both_spans_and_how_they_compare(architecture: str) -> None:
    """Each row alone, its vectors pooled by hand and put side by side."""
    task, model = marking(architecture)
    examples = [example for index, given in enumerate(GIVEN) for example in task.encode(given, index=index)]
    batch = task.collate(examples)
    found = task._logits(model.head, model.model(batch.inputs), batch)
    head = model.head
    assert isinstance(head, SpanPairHead)
    expected = []
    for example in examples:
        hidden = model.model(task.reader.inputs([example.places.sequence])).hidden[0]
        whole = hidden.mean(0) if architecture == "bert" else hidden[-1]
        first, second = (hidden[slice(*place)].mean(0) for place in (example.places.first, example.places.second))
        expected.append(head.scores(torch.cat([whole, first, second, (first - second).abs(), first * second])))
    torch.testing.assert_close(found, torch.stack(expected), atol=1e-5, rtol=1e-5)
    loss = task.step(model, batch)["label"]
    golds = torch.tensor([0, 1, 0])
    assert loss.count == 3
    assert loss.total.item() == pytest.approx(
        torch.nn.functional.cross_entropy(torch.stack(expected), golds, reduction="sum").item(), abs=1e-4
    )


@pytest.mark.parametrize("pooling", ["first", "mean", "last"])
def test_rows_in_front_and_removed_tokens_do_not_count(pooling: Any) -> None:
    """Tokens 0, 2, 3 of five are kept, two prompt rows stand in front and the row is padded."""
    head = SpanPairHead(4, 2, pooling)
    hidden = torch.randn(1, 6, 4)
    encoded = Encoded(
        hidden=hidden,
        mask=torch.tensor([[True, True, True, True, True, False]]),
        positions=torch.tensor([[-1, -1, 0, 2, 3, 4]]),
        row_of=torch.tensor([0]),
        seq=5,
    )
    spans = torch.zeros(1, 2, 5, dtype=torch.bool)
    spans[0, 0, 0:2] = True  # token 1 was removed
    spans[0, 1, 2:4] = True
    whole = {"first": hidden[0, 2], "last": hidden[0, 4], "mean": hidden[0, 2:5].mean(0)}[pooling]
    first, second = hidden[0, 2], hidden[0, 3:5].mean(0)
    expected = head.scores(torch.cat([whole, first, second, (first - second).abs(), first * second]))
    torch.testing.assert_close(head.joined(head(encoded), encoded, spans)[0], expected)


@pytest.mark.parametrize("architecture", MODELS)
def test_predictions_do_not_depend_on_the_company_of_a_row(architecture: str) -> None:
    task, model = marking(architecture)
    together = task.predict(model, GIVEN)
    for given, found, other in zip(GIVEN, together, task.predict(model, GIVEN[::-1])[::-1], strict=True):
        assert found.logits == pytest.approx(other.logits, abs=1e-5)
        assert found.logits == pytest.approx(task.predict(model, [given])[0].logits, abs=1e-5)
        told = answer(task, found, task.calibrate(GIVEN, together), given)
        assert told["prediction"] == found.label
        assert 0.5 <= told["probability"] <= 1
    assert set(task.score(GIVEN, together)) == {"accuracy", "macro_f1", "micro_f1", "mcc"}


WIC = {"text": "a bank", "pair": "the bank", "first_start": 2, "first_end": 6, "second_start": 4, "second_end": 8}


def read_rows(path: Path, config: ClassifySpanPairConfig) -> list[SpanPairRow]:
    columns = {"pair": "pair"} if "pair" in path.read_text() else {}
    return [found.row for found in ROWS.records(config, Source(path=path, columns=columns, with_targets=True))]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"first_end": 7}, "the first span is characters 2 to 7 of a text of 6"),
        ({"second_start": 8}, "the second span is characters 8 to 8 of a text of 8"),
        ({"second_end": "x"}, "second_end is 'x': needs a whole number"),
        ({"first_start": True}, "first_start is True"),
        ({"first_start": 1, "first_end": 2}, "needs a stretch with text in it"),
        ({"label": "perhaps"}, "label 'perhaps' is not one of the task's: needs one of false, true"),
    ],
)
def test_a_row_that_cannot_be_read_is_told_with_its_line(change: dict[str, Any], said: str, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    good = {**WIC, "label": False}
    path.write_text(json.dumps(good) + "\n" + json.dumps({**good, **change}) + "\n")
    config = ClassifySpanPairConfig(labels=("false", "true"))
    with pytest.raises(DataError) as caught:
        read_rows(path, config)
    assert said in str(caught.value)
    assert f"{path}, line 2" in str(caught.value)


def test_bad_rows_are_left_out_when_asked(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({**WIC, "label": True}) + "\n" + json.dumps({**WIC, "first_end": 99, "label": True}))
    bad = BadRows(skip=True)
    source = Source(path=path, columns={"pair": "pair"}, with_targets=True, bad=bad)
    assert len(list(ROWS.records(ClassifySpanPairConfig(), source))) == 1
    assert bad.skipped == 1


def test_a_recipe_learns_whether_two_spans_are_one_word(tmp_path: Path, tiny_bert: Path) -> None:
    lines = []
    for number in range(120):
        first, second = "abcd"[number % 4], "abcd"[number // 4 % 4 if number % 3 else number % 4]
        text = f"the {first} was in the {second} by the {'abcd'[number // 7 % 4]}"
        start = text.index(f" {second} by") + 1
        span = {"first_start": 4, "first_end": 5, "second_start": start, "second_end": start + 1}
        lines.append(json.dumps({"text": text, **span, "label": "same" if first == second else "other"}))
    (tmp_path / "rows.jsonl").write_text("\n".join(lines))
    recipe = Recipe.from_toml(
        f"""
        [model]
        name = "{tiny_bert}"
        [task]
        kind = "classify_span_pair"
        max_length = 20
        [data]
        train = ["{tmp_path / "rows.jsonl"}"]
        development = ["{tmp_path / "rows.jsonl"}"]
        [train]
        epochs = 16
        batch_size = 12
        learning_rate = 3e-3
        evaluations_per_epoch = 1
        [precision]
        compute = "fp32"
        """
    )
    run = run_recipe(recipe, folder=tmp_path / "run")
    assert run.result.scores["accuracy"] > 90
    trained = load_task(run.folder / "task")
    assert isinstance(trained.task, ClassifySpanPair)
    assert trained.task.labels == ("other", "same")
    rows = read_rows(tmp_path / "rows.jsonl", trained.config)
    with torch.inference_mode():
        scores = trained.task.score(rows, trained.task.predict(trained.model, rows))
    assert scores["accuracy"] == pytest.approx(run.result.scores["accuracy"], abs=2)


@pytest.mark.real_data
def test_every_pair_of_wic_is_found_in_its_tokens(data_folder: Path, tiny_bert: Path) -> None:
    """Word in Context as it is published: 638 pairs of sentences, with the word where its characters say."""
    columns = {"text": "sentence1", "pair": "sentence2", "label": "label"}
    columns |= {f"{name}_{border}": f"{border}{n}" for n, name in ((1, "first"), (2, "second")) for border in BORDERS}
    source = Source(path=data_folder / "superglue_full/WiC/val.jsonl.gz", columns=columns, with_targets=True)
    records = list(ROWS.records(ClassifySpanPairConfig(labels=("false", "true")), source))
    assert len(records) == 638
    loaded = load_model(str(tiny_bert))
    read = TextReader(
        tokenizer=loaded.tokenizer, special=loaded.special, segments=True, with_source=False, max_length=96
    )
    for record in records:
        given: SpanPairRow = record.row
        found = find_spans(read, given.text, given.pair, given.first, given.second, row=0, place=given.place)
        for text, characters, tokens in (
            (given.text, given.first, found.first),
            (given.pair or "", given.second, found.second),
        ):
            shown = loaded.tokenizer.decode(list(found.sequence.token_ids[slice(*tokens)]))
            assert shown.replace(" ", "") == text[slice(*characters)].lower().replace(" ", ""), given.place
