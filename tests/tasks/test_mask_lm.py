"""Masked language modelling: which tokens are hidden, the loss beside transformers', resuming, filled masks."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from cypher.config import MaskLmConfig, TrainConfig
from cypher.data.texts import TextRow
from cypher.errors import ConfigError, DataError
from cypher.hub.tokenizer import SpecialTokens
from cypher.models import bert
from cypher.models.bert import Bert, BertConfig
from cypher.models.fresh import train_tokenizer
from cypher.models.headed import HeadedModel
from cypher.models.load import load_model
from cypher.tasks.mask_lm import MaskLm, choose_tokens
from cypher.train.loop import train
from cypher.train.progress import read_metrics

TEXTS = ["the river is by the house and the road", "who was in the river", "a", "what is the house of the road for"] * 8
ROWS = [TextRow(texts=(text,)) for text in TEXTS]
WORDS = ("river", "house", "road")


@pytest.fixture
def loaded(make_tiny_bert: Callable[..., Path]) -> Any:
    return load_model(str(make_tiny_bert(words=WORDS)))


def task_of(loaded: Any, **settings: Any) -> MaskLm:
    return MaskLm(MaskLmConfig(max_length=32, **settings), tokenizer=loaded.tokenizer, special=loaded.special)


def headed(loaded: Any, task: MaskLm) -> HeadedModel:
    return HeadedModel(loaded.model, task.head(loaded.model)).eval()


def batch_of(task: MaskLm, rows: list[TextRow] = ROWS) -> Any:
    return task.collate([block for index, row in enumerate(rows) for block in task.encode(row, index=index)])


def test_loss_equals_transformers() -> None:
    theirs_config = transformers.BertConfig(
        vocab_size=90, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48,
        max_position_embeddings=64,
    )  # fmt: skip
    theirs = transformers.BertForMaskedLM(theirs_config).eval()
    for parameter in theirs.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    config = BertConfig.from_checkpoint(theirs_config.to_dict())
    ours = Bert(config.model_copy(update={"with_pooler": False, "with_prediction": True})).eval()
    named = {bert.NAME_MAP.to_ours(name): value for name, value in theirs.state_dict().items()}
    ours.load_state_dict({name: named[name] for name in ours.state_dict()})
    tokenizer = train_tokenizer(TEXTS, vocabulary_size=300)
    special = SpecialTokens(cls_id=1, sep_id=2, pad_id=0, mask_id=3)
    task = MaskLm(MaskLmConfig(max_length=32), tokenizer=tokenizer, special=special)
    torch.manual_seed(0)
    task._replacements = list(range(4, 90))
    batch = batch_of(task)
    batch = dataclasses.replace(batch, inputs=dataclasses.replace(batch.inputs, token_ids=batch.inputs.token_ids % 90))
    token_ids, chosen = task.masked(batch)
    model = HeadedModel(ours, task.head(ours))
    term = task.step(model, batch)["masked"]
    expected = theirs(
        input_ids=token_ids, attention_mask=batch.inputs.attention_mask.long(),
        labels=batch.inputs.token_ids.where(chosen, -100),
    ).loss  # fmt: skip
    assert term.count == int(chosen.sum()) == task.counts(batch)["masked"]
    torch.testing.assert_close(term.total / term.count, expected, atol=1e-5, rtol=1e-5)


def test_masking_follows_the_paper_and_leaves_special_tokens_alone(loaded: Any) -> None:
    task = task_of(loaded)
    rows = [TextRow(texts=(" ".join(random.Random(n).choices((*WORDS, "the", "of"), k=28)),)) for n in range(200)]
    batch = batch_of(task, rows)
    kinds = torch.zeros(3)
    for step in range(4):
        token_ids, chosen = task.masked(dataclasses.replace(batch, step=step))
        assert not chosen[batch.targets["words"] < 0].any()
        assert torch.equal(token_ids[~chosen], batch.inputs.token_ids[~chosen])
        assert (chosen.sum(1) == 4).all()  # 15 % of 28
        hidden, same = token_ids[chosen] == task.mask_id, token_ids[chosen] == batch.inputs.token_ids[chosen]
        kinds += torch.tensor([hidden.sum(), (~hidden & ~same).sum(), same.sum()])
    shares = kinds / kinds.sum()
    assert shares.tolist() == pytest.approx([0.8, 0.1, 0.1], abs=0.03)


def test_processes_that_share_a_model_hide_the_same(loaded: Any) -> None:
    first, last = task_of(loaded), task_of(loaded)
    model = headed(loaded, first)
    batch = dataclasses.replace(batch_of(first), step=3)
    expected = task_of(loaded).step(model, batch)["masked"]
    read = first.reads(batch)
    assert not torch.equal(read.token_ids, batch.inputs.token_ids)
    term = last.losses(model.head, model.model(read), batch)["masked"]
    assert torch.equal(last.reads(batch).token_ids, read.token_ids)
    assert term.count == expected.count == last.counts(batch)["masked"]
    assert torch.equal(term.total, expected.total)


def test_masking_depends_on_seed_step_and_place_alone(loaded: Any) -> None:
    task = task_of(loaded)
    batch = batch_of(task)
    whole = task.masked(batch)[0]
    alone = [task.collate(task.encode(row, index=index)) for index, row in enumerate(ROWS)]
    for place, one in enumerate(alone):
        length = one.inputs.token_ids.shape[1]
        assert torch.equal(task.masked(one)[0][0], whole[place, :length])
    assert torch.equal(task.masked(batch)[0], whole)
    assert not torch.equal(task.masked(dataclasses.replace(batch, step=1))[0], whole)
    assert not torch.equal(task_of(loaded, seed=1).masked(batch)[0], whole)


def test_whole_words_of_word_pieces_and_of_bytes(loaded: Any) -> None:
    bpe = train_tokenizer(["an unseen thing"], vocabulary_size=300)
    special = SpecialTokens(cls_id=1, sep_id=2, pad_id=0, mask_id=3)
    byte_level = MaskLm(MaskLmConfig(whole_word=True, masked=0.4), tokenizer=bpe, special=special)
    for task in (task_of(loaded, whole_word=True, masked=0.4), byte_level):
        batch = batch_of(task, [TextRow(texts=("the unseen bridges are wonderful and old",))] * 20)
        chosen = task.masked(batch)[1]
        for words, picked in zip(batch.targets["words"].tolist(), chosen.tolist(), strict=True):
            hidden = {word for word, is_hidden in zip(words, picked, strict=True) if is_hidden}
            pieces = [is_hidden for word, is_hidden in zip(words, picked, strict=True) if word in hidden]
            assert all(pieces)
            assert len(pieces) > len(hidden)


@pytest.mark.parametrize(("words", "n"), [([-1, -1], 0), ([-1, 0, 0, 0, -1], 3), ([0, 1, 2, 3], 1), ([], 0)])
def test_a_block_with_a_word_always_predicts_something(words: list[int], n: int) -> None:
    assert len(choose_tokens(words, share=0.15, draw=random.Random(0))) == n


def test_blocks_do_not_cross_documents(loaded: Any) -> None:
    task = MaskLm(MaskLmConfig(max_length=8), tokenizer=loaded.tokenizer, special=loaded.special)
    blocks = task.encode(TextRow(texts=("the river is by the house and the road", "who was")), index=3)
    assert [len(block.token_ids) for block in blocks] == [8, 5, 4]
    assert [block.number for block in blocks] == [0, 1, 2]


def test_resuming_and_cutting_give_the_same_losses(
    loaded: Any, make_tiny_bert: Callable[..., Path], tmp_path: Path
) -> None:
    curves = {}
    for name, config, stops in (
        ("whole", TrainConfig(epochs=2, batch_size=8, seed=5), [2]),
        ("resumed", TrainConfig(epochs=2, batch_size=8, seed=5), [None, 2]),
        ("cut", TrainConfig(epochs=2, batch_size=8, seed=5, accumulation=3), [2]),
    ):
        for stop in stops:
            torch.manual_seed(0)
            fresh = load_model(str(make_tiny_bert(words=WORDS)))
            task = task_of(fresh, seed=5)
            try:
                train(
                    headed(fresh, task), task, ROWS, ROWS[:8], config=config, dtype=torch.float32,
                    folder=tmp_path / name, progress=None if stop else Interrupts(),
                )  # fmt: skip
            except KeyboardInterrupt:
                assert stop is None
        rows = read_metrics(tmp_path / name / "metrics.jsonl")
        curves[name] = [row["loss"] for row in rows if "loss" in row]
    assert len(curves["whole"]) == 8
    assert curves["resumed"] == pytest.approx(curves["whole"], abs=1e-6)
    assert curves["cut"] == pytest.approx(curves["whole"], abs=1e-5)


class Interrupts:
    def started(self, **_: Any) -> None:
        pass

    def stepped(self, *, step: int, **_: Any) -> None:
        if step == 3:
            raise KeyboardInterrupt

    def evaluated(self, **_: Any) -> None:
        pass


def test_held_out_scores_repeat_and_masks_are_filled(loaded: Any) -> None:
    task = task_of(loaded, top_k=3)
    model = headed(loaded, task)
    with torch.inference_mode():
        predictions = task.predict(model, [*ROWS[:6], TextRow(texts=("the [MASK] is by the [MASK]",))])
        again = task.predict(model, ROWS[:6])
    assert task.score(ROWS[:6], again) == pytest.approx(task.score(ROWS[:6], predictions[:6]))
    *others, filled = predictions
    assert (filled.count, [len(fills) for fills in filled.fills]) == (0, [3, 3])
    assert all(fills[0].score >= fills[1].score > 0 for fills in filled.fills)
    assert all(other.count and not other.fills for other in others)


def test_what_cannot_be_masked_is_refused(loaded: Any) -> None:
    without = dataclasses.replace(loaded.special, mask_id=None)
    with pytest.raises(ConfigError, match="no mask token"):
        MaskLm(MaskLmConfig(), tokenizer=loaded.tokenizer, special=without)
    task = task_of(loaded)
    with pytest.raises(DataError, match="without a token to hide"):
        task.score([], [])
