"""Llama equals transformers' with copied weights, with padding and step by step."""

from __future__ import annotations

import pytest
import torch
from oracles import LLAMA_SIZES, llama_of, llama_oracle, padded

from cypher.data.batch import Inputs
from cypher.errors import ModelError
from cypher.layers.state import State
from cypher.models.llama import NAME_MAP, Llama, LlamaConfig


@pytest.mark.parametrize("size", LLAMA_SIZES)
@pytest.mark.parametrize("side", ["right", "left"])
def test_equals_transformers_with_padding(size: str, side: str) -> None:
    theirs, inputs = llama_oracle(size), padded(side)
    llama = llama_of(theirs)
    mask = inputs.attention_mask
    with torch.inference_mode():
        expected = theirs(
            inputs.token_ids, attention_mask=mask.long(), position_ids=(mask.long().cumsum(1) - 1).clamp(min=0)
        ).logits
        found = llama.language_head()(llama(inputs))
    torch.testing.assert_close(found[mask], expected[mask], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("cuts", [(20, 1, 1, 1), (1,) * 23, (5, 9, 9)])
def test_step_by_step_is_the_same_as_at_once(side: str, cuts: tuple[int, ...]) -> None:
    llama, inputs = llama_of(llama_oracle("grouped")), padded(side)
    state = State(capacity=23)
    with torch.inference_mode():
        expected = llama(inputs).hidden
        parts, start = [], 0
        for tokens in cuts:
            part = slice(start, start + tokens)
            step = Inputs(token_ids=inputs.token_ids[:, part], attention_mask=inputs.attention_mask[:, part])
            parts.append(llama(step, state).hidden)
            start += tokens
    mask = inputs.attention_mask
    torch.testing.assert_close(torch.cat(parts, 1)[mask], expected[mask], atol=1e-5, rtol=1e-5)
    assert state.length == 23
    assert state.next_position is not None
    assert state.next_position.tolist() == mask.sum(1).tolist()


def test_training_and_scores_are_the_same_function() -> None:
    llama, inputs = llama_of(llama_oracle("grouped")), padded("right")
    mask = inputs.attention_mask
    expected = llama(inputs).hidden[mask]
    torch.testing.assert_close(llama(inputs, scores=True).hidden[mask], expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(llama.train()(inputs).hidden[mask], expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("size", LLAMA_SIZES)
def test_num_params_formula_is_reality(size: str) -> None:
    config = LlamaConfig.from_checkpoint(llama_oracle(size).config.to_dict())
    assert config.num_params() == sum(parameter.numel() for parameter in Llama(config).parameters())


def test_names_map_both_ways_without_a_rest() -> None:
    names = list(llama_oracle("untied").state_dict())
    assert [NAME_MAP.to_theirs(NAME_MAP.to_ours(name)) for name in names] == names


def test_what_it_cannot_be_is_refused() -> None:
    llama = llama_of(llama_oracle("tiny"))
    long = torch.ones(1, 41, dtype=torch.int64)
    with pytest.raises(ModelError, match="41 tokens in a row: needs at most 40"):
        llama(Inputs(token_ids=long, attention_mask=long.bool()))
    short = Inputs(token_ids=long[:, :5], attention_mask=long[:, :5].bool())
    with pytest.raises(ModelError, match="5 tokens in a state of 4"):
        llama(short, State(capacity=4))
    config = llama_oracle("tiny").config.to_dict()
    for change, said in (
        ({"model_type": "bert"}, "model_type 'bert': needs llama"),
        ({"rope_parameters": {"rope_type": "yarn", "rope_theta": 1.0}}, "rope type 'yarn'"),
        ({"attention_bias": True}, "attention_bias"),
        ({"hidden_act": "gelu"}, "hidden_act"),
        ({"head_dim": 3}, "head_dim 3"),
    ):
        with pytest.raises(ModelError, match=said):
            LlamaConfig.from_checkpoint({**config, **change})


@pytest.mark.parametrize(("precision", "least"), [("fp32", 0.99999), ("bf16", 0.999)])
def test_packed_weights_are_the_same_function(precision: str, least: float) -> None:
    llama, inputs = llama_of(llama_oracle("grouped")), padded("right")
    with torch.inference_mode():
        expected = llama(inputs).hidden
        llama.pack(precision)
        packed = llama(inputs).hidden.float()
    mask = inputs.attention_mask
    assert torch.cosine_similarity(packed[mask], expected[mask]).min() > least
