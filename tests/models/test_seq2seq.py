"""The encoder-decoder equals torch's layers and transformers' models with copied weights, and itself step by step."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from oracles import FAMILIES, pairs, seq2seq_of, seq2seq_oracle
from torch import nn

from cypher.data.batch import Inputs
from cypher.errors import ModelError
from cypher.layers.attention import FullAttention
from cypher.layers.block import Block
from cypher.layers.state import State
from cypher.models.seq2seq import NAME_MAP, Seq2Seq, Seq2SeqConfig

SIZES = {"n_encoder_layers": 2, "n_decoder_layers": 3, "n_heads": 4, "inner_width": 40}


@pytest.mark.parametrize("family", FAMILIES)
def test_equals_transformers_with_padding(family: str) -> None:
    theirs, inputs = seq2seq_oracle(family), pairs()
    model = seq2seq_of(theirs)
    assert inputs.source is not None
    with torch.inference_mode():
        expected = theirs(
            input_ids=inputs.source.token_ids,
            attention_mask=inputs.source.attention_mask.long(),
            decoder_input_ids=inputs.token_ids,
            decoder_attention_mask=inputs.attention_mask.long(),
        ).logits
        found = model.language_head()(model(inputs))
    kept = inputs.attention_mask
    torch.testing.assert_close(found[kept], expected[kept], atol=1e-5, rtol=1e-5)


def copy_attention(into: FullAttention, source: nn.MultiheadAttention) -> None:
    for part, weight, bias in zip(
        (into.query, into.key, into.value), source.in_proj_weight.chunk(3), source.in_proj_bias.chunk(3), strict=True
    ):
        part.weight.data, part.bias.data = weight.data.clone(), bias.data.clone()
    into.output.load_state_dict(source.out_proj.state_dict())


def copy_block(into: Block, source: Any, *, with_source: bool) -> None:
    copy_attention(into.attention, source.self_attn)
    into.attention_join.norm.load_state_dict(source.norm1.state_dict())
    into.feedforward.up.load_state_dict(source.linear1.state_dict())
    into.feedforward.down.load_state_dict(source.linear2.state_dict())
    last = source.norm3 if with_source else source.norm2
    into.feedforward_join.norm.load_state_dict(last.state_dict())
    if with_source:
        copy_attention(into.cross_attention, source.multihead_attn)
        into.cross_attention_join.norm.load_state_dict(source.norm2.state_dict())


@pytest.mark.parametrize("style", ["pre", "post"])
def test_equals_the_layers_of_torch(style: str) -> None:
    torch.manual_seed(0)
    config = Seq2SeqConfig(vocabulary_size=60, source_vocabulary_size=60, width=32, style=style, **SIZES)
    model = Seq2Seq(config).eval()
    # Without dropout its training mode is the same function, and has none of the short cuts that leave padding out.
    encoder = nn.TransformerEncoder(
        nn.TransformerEncoderLayer(32, 4, 40, dropout=0.0, batch_first=True, norm_first=style == "pre"),
        2, nn.LayerNorm(32), enable_nested_tensor=False,
    )  # fmt: skip
    theirs = nn.Transformer(
        32, 4, 2, 3, 40, dropout=0.0, batch_first=True, norm_first=style == "pre", custom_encoder=encoder
    )
    if style == "post":  # torch puts a last norm behind post-norm layers, too; the paper does not
        theirs.encoder.norm = theirs.decoder.norm = None
    for parameter in theirs.parameters():
        nn.init.normal_(parameter, std=0.3)
    for segment, layers in (("encoder", theirs.encoder.layers), ("decoder", theirs.decoder.layers)):
        for number, layer in enumerate(layers):
            copy_block(model.segments[segment][str(number)], layer, with_source=segment == "decoder")
    if style == "pre":
        model.norms.load_state_dict(
            {f"{side}.{name}": value for side, part in (("encoder", theirs.encoder), ("decoder", theirs.decoder))
             for name, value in part.norm.state_dict().items()}
        )  # fmt: skip
    inputs = pairs()
    assert inputs.source is not None

    def embedded(table: nn.Module, ids: torch.Tensor) -> torch.Tensor:
        place = torch.arange(ids.shape[1]).float().unsqueeze(1)
        angles = place / 10_000 ** (torch.arange(0, 32, 2).float() / 32)
        return table(ids) * math.sqrt(32) + torch.cat([angles.sin(), angles.cos()], 1)

    with torch.no_grad():
        expected = theirs(
            embedded(model.source_token, inputs.source.token_ids),
            embedded(model.token, inputs.token_ids),
            tgt_mask=nn.Transformer.generate_square_subsequent_mask(11) < 0,
            src_key_padding_mask=~inputs.source.attention_mask,
            memory_key_padding_mask=~inputs.source.attention_mask,
            tgt_key_padding_mask=~inputs.attention_mask,
        )
        found = model(inputs).hidden
        training = model.train()(inputs).hidden
    kept = inputs.attention_mask
    torch.testing.assert_close(found[kept], expected[kept], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(training[kept], expected[kept], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("family", ["marian", "mbart"])
def test_step_by_step_is_the_same_as_at_once(family: str) -> None:
    """The source is read once: later steps do without it."""
    model, inputs = seq2seq_of(seq2seq_oracle(family)), pairs()
    state = State(capacity=11)
    with torch.inference_mode():
        expected = model(inputs).hidden
        parts = []
        for start, end in ((0, 4), (4, 5), (5, 11)):
            step = Inputs(
                token_ids=inputs.token_ids[:, start:end],
                attention_mask=inputs.attention_mask[:, start:end],
                source=None if start else inputs.source,
            )
            parts.append(model(step, state).hidden)
    kept = inputs.attention_mask
    torch.testing.assert_close(torch.cat(parts, 1)[kept], expected[kept], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_num_params_formula_is_reality(family: str) -> None:
    config = Seq2SeqConfig.from_checkpoint(seq2seq_oracle(family).config.to_dict())
    for changes in ({}, {"source_vocabulary_size": 33}):
        changed = config.model_copy(update=changes)
        assert changed.num_params() == sum(parameter.numel() for parameter in Seq2Seq(changed).parameters())


def test_names_map_both_ways() -> None:
    for family in FAMILIES:
        ours = [NAME_MAP.to_ours(name) for name in seq2seq_oracle(family).state_dict()]
        assert all(NAME_MAP.to_ours(NAME_MAP.to_theirs(name)) == name for name in ours if name is not None)


def test_what_it_cannot_be_is_refused() -> None:
    model, inputs = seq2seq_of(seq2seq_oracle("marian")), pairs()
    with pytest.raises(ModelError, match="rows without a source"):
        model(Inputs(token_ids=inputs.token_ids, attention_mask=inputs.attention_mask))
    long = torch.ones(1, 51, dtype=torch.int64)
    with pytest.raises(ModelError, match="51 tokens in a row: needs at most 50"):
        model(
            Inputs(token_ids=long, attention_mask=long.bool(), source=Inputs(token_ids=long, attention_mask=long > 0))
        )
    config = seq2seq_oracle("marian").config.to_dict()
    for change, said in (
        ({"model_type": "t5"}, "model_type 't5': needs one of marian, bart"),
        ({"encoder_ffn_dim": 3}, "encoder_ffn_dim 3 and decoder_ffn_dim 40"),
    ):
        with pytest.raises(ModelError, match=said):
            Seq2SeqConfig.from_checkpoint({**config, **change})
