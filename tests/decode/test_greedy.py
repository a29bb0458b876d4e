"""Greedy decoding writes token by token what transformers writes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from oracles import FAMILIES, LLAMA_SIZES, llama_of, llama_oracle, padded, pairs, seq2seq_of, seq2seq_oracle

from cypher.data.batch import Inputs
from cypher.decode.greedy import greedy
from cypher.errors import ConfigError, ModelError
from cypher.models.bert import Bert, BertConfig

NEW = 12


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("size", LLAMA_SIZES)
def test_a_decoder_writes_what_transformers_writes(size: str, side: str) -> None:
    theirs = llama_oracle(size)
    left = padded("left")  # transformers wants its prompts there
    expected = theirs.generate(
        left.token_ids, attention_mask=left.attention_mask.long(), do_sample=False, max_new_tokens=NEW,
        pad_token_id=0, eos_token_id=None,
    )[:, left.token_ids.shape[1] :]  # fmt: skip
    assert greedy(llama_of(theirs), padded(side), max_new_tokens=NEW) == expected.tolist()


@pytest.mark.parametrize("family", FAMILIES)
def test_an_encoder_decoder_writes_what_transformers_writes(family: str) -> None:
    theirs, source = seq2seq_oracle(family), pairs().source
    assert source is not None
    theirs.generation_config.forced_eos_token_id = theirs.generation_config.forced_bos_token_id = None
    expected = theirs.generate(
        source.token_ids, attention_mask=source.attention_mask.long(), do_sample=False, num_beams=1,
        max_new_tokens=NEW, eos_token_id=None, bad_words_ids=None,
    )[:, 1:]  # fmt: skip
    start = torch.full((len(source.token_ids), 1), 3)
    inputs = Inputs(token_ids=start, attention_mask=start > 0, source=source)
    assert greedy(seq2seq_of(theirs), inputs, max_new_tokens=NEW) == expected.tolist()


def test_a_row_ends_by_itself_and_changes_no_other() -> None:
    model, inputs = llama_of(llama_oracle("grouped")), padded("right")
    whole = greedy(model, inputs, max_new_tokens=NEW)
    stop = whole[2][3]
    stopped = greedy(model, inputs, max_new_tokens=NEW, stop_ids=[stop])
    assert stopped == [row[: row.index(stop)] if stop in row else row for row in whole]
    for row in range(len(whole)):
        alone = Inputs(token_ids=inputs.token_ids[row : row + 1], attention_mask=inputs.attention_mask[row : row + 1])
        assert greedy(model, alone, max_new_tokens=NEW) == [whole[row]]


def test_what_cannot_be_written_is_refused() -> None:
    model, inputs = llama_of(llama_oracle("tiny")), padded("right")
    with pytest.raises(ModelError, match="41 tokens in a row: needs at most 40"):
        greedy(model, inputs, max_new_tokens=30)
    nothing: Any = Inputs(token_ids=inputs.token_ids, attention_mask=torch.zeros_like(inputs.attention_mask))
    with pytest.raises(ConfigError, match="a row without a token"):
        greedy(model, nothing, max_new_tokens=2)
    reader = Bert(BertConfig(vocabulary_size=60, width=8, n_layers=1, n_heads=2, inner_width=8))
    with pytest.raises(ConfigError, match="Bert reads a whole text at once"):
        greedy(reader, inputs, max_new_tokens=2)
