"""Causal language modelling: borders of documents, the loss beside transformers', bits per byte, prompts."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from oracles import llama_of, llama_oracle

from cypher.config import CausalLmConfig
from cypher.data.batch import Inputs
from cypher.data.texts import TextRow
from cypher.errors import DataError
from cypher.hub.tokenizer import SpecialTokens
from cypher.models.fresh import train_tokenizer
from cypher.models.headed import HeadedModel
from cypher.models.llama import Llama, LlamaConfig
from cypher.tasks import vocabulary_loss
from cypher.tasks.causal_lm import CausalLm, CompletionRow, Stretch

TOKENIZER = train_tokenizer(["the river and the road", "a house by the river"], vocabulary_size=290)
TWO = SpecialTokens(cls_id=1, sep_id=2, pad_id=0, mask_id=None)
ONE = SpecialTokens(cls_id=2, sep_id=2, pad_id=2, mask_id=None)
LONG = "the river and the road and a house by the river. " * 5


def task_of(special: SpecialTokens = TWO, **settings: Any) -> CausalLm:
    return CausalLm(CausalLmConfig(**{"max_length": 16, **settings}), tokenizer=TOKENIZER, special=special)


def tiny() -> HeadedModel:
    torch.manual_seed(0)
    sizes = {"n_layers": 1, "n_heads": 2, "n_key_value_heads": 1, "inner_width": 32}
    model = Llama(LlamaConfig(vocabulary_size=290, width=16, max_positions=256, **sizes)).eval()
    return HeadedModel(model, model.language_head()).eval()


@pytest.mark.parametrize("most_logits", [1, 10**9])
@pytest.mark.parametrize("size", ["grouped", "untied"])
def test_loss_equals_transformers(size: str, most_logits: int, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = llama_oracle(size)
    ours = llama_of(theirs)
    monkeypatch.setattr(vocabulary_loss, "MOST_LOGITS", most_logits)
    task, rows = task_of(), [[5, 6, 7, 8, 9, 10], [11, 12, 13]]
    batch = task.collate(
        [Stretch(row=n, number=0, token_ids=tuple(ids[:-1]), following=tuple(ids[1:])) for n, ids in enumerate(rows)]
    )
    term = task.step(HeadedModel(ours, task.head(ours)), batch)["next"]
    ids = torch.tensor([rows[0], [*rows[1], 0, 0, 0]])
    mask = torch.tensor([[1] * 6, [1, 1, 1, 0, 0, 0]])
    expected = theirs(input_ids=ids, attention_mask=mask, labels=ids.where(mask.bool(), -100)).loss
    assert term.count == 7
    torch.testing.assert_close(term.total / term.count, expected, atol=1e-5, rtol=1e-5)
    (found,) = torch.autograd.grad(term.total / term.count, [ours.token_vectors()])
    (wanted,) = torch.autograd.grad(expected, [theirs.get_input_embeddings().weight])
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("special", [ONE, TWO])
def test_every_token_of_a_text_is_predicted_once(special: SpecialTokens) -> None:
    task = task_of(special)
    ids = TOKENIZER.encode(LONG, add_special_tokens=False).ids
    stretches = task.encode(TextRow(texts=(LONG, "a house")), index=0)
    predicted = [token for stretch in stretches for token in stretch.following if token >= 0]
    house = TOKENIZER.encode("a house", add_special_tokens=False).ids
    assert predicted == [*ids, special.sep_id, *house, special.sep_id]
    assert all(len(stretch.token_ids) == len(stretch.following) <= 16 for stretch in stretches)
    read = [token for stretch in stretches for token in stretch.token_ids]
    between = [special.sep_id] if special is ONE else [special.sep_id, special.cls_id]
    assert read == [special.cls_id, *ids, *between, *house]


def test_short_documents_share_blocks_and_long_ones_stay_alone() -> None:
    rows = [TextRow(texts=(text,)) for text in ("the river", "the road", LONG, "a house", "the river", "a road")]
    task = task_of()
    packed = task.pack(rows)
    assert [text for row in packed for text in row.texts] == [text for row in rows for text in row.texts]
    assert len(packed) < len(rows)
    assert (LONG,) in [row.texts for row in packed]
    for row in packed:
        assert row.texts == (LONG,) or len(task.encode(row, index=0)) == 1
    assert task_of(pack=False).pack(rows) == rows


def test_only_completions_are_learnt_and_prompts_lose_their_beginning() -> None:
    task = task_of()
    (stretch,) = task.encode(CompletionRow(prompt=LONG, completion="a house"), index=0)
    completion = TOKENIZER.encode("a house", add_special_tokens=False).ids
    assert [token for token in stretch.following if token >= 0] == [*completion, TWO.sep_id]
    assert len(stretch.token_ids) == 16
    (other,) = task.encode(CompletionRow(prompt="", completion=LONG), index=0)
    assert other.token_ids[0] == TWO.cls_id
    assert len(other.token_ids) == len(other.following) == 16


def test_scores_are_sums_over_all_blocks_whatever_their_length() -> None:
    model, rows = tiny(), [TextRow(texts=(LONG,)), TextRow(texts=("a höuse",))]
    with torch.inference_mode():
        scores = [(task := task_of(max_length=length)).score(rows, task.predict(model, rows)) for length in (200, 201)]
    assert scores[0] == pytest.approx(scores[1], rel=1e-4)
    found = scores[0]
    tokens = sum(len(TOKENIZER.encode(row.texts[0]).ids) + 1 for row in rows)
    size = sum(len(row.texts[0].encode()) for row in rows)
    assert found["perplexity"] == pytest.approx(math.exp(found["loss"]))
    assert found["bits_per_byte"] == pytest.approx(found["loss"] * tokens / size / math.log(2))
    with pytest.raises(DataError, match="without a text"):
        task_of().score([], [])


def test_prompts_go_on_greedily() -> None:
    model, task = tiny(), task_of(max_new_tokens=5)
    with torch.inference_mode():
        (prediction,) = task.predict(model, [CompletionRow(prompt="the river")])
        ids = [TWO.cls_id, *TOKENIZER.encode("the river").ids]
        written: list[int] = []
        for _ in range(5):
            row = torch.tensor([ids + written])
            logits = model(Inputs(token_ids=row, attention_mask=torch.ones_like(row, dtype=torch.bool)))[0]
            if (best := int(logits[0, -1].argmax())) == TWO.sep_id:
                break
            written.append(best)
    assert (prediction.text, prediction.count) == (TOKENIZER.decode(written), 0)
