"""Tiny models of transformers with random weights, ours with the same weights, and inputs with padding."""

from __future__ import annotations

from typing import Any

import torch
import transformers
from torch import nn

from cypher.data.batch import Inputs
from cypher.models import llama, seq2seq
from cypher.models.llama import Llama, LlamaConfig
from cypher.models.seq2seq import Seq2Seq, Seq2SeqConfig

LLAMA_SIZES = {
    "tiny": {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 2},
    "grouped": {"hidden_size": 48, "num_hidden_layers": 3, "num_attention_heads": 6, "num_key_value_heads": 2},
    "untied": {"hidden_size": 32, "num_hidden_layers": 5, "num_attention_heads": 4, "num_key_value_heads": 1},
}


def llama_oracle(size: str) -> transformers.LlamaForCausalLM:
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=60,
        max_position_embeddings=40,
        intermediate_size=72,
        tie_word_embeddings=size != "untied",
        rope_theta=500.0,
        **LLAMA_SIZES[size],
    )
    model = transformers.LlamaForCausalLM(config).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return model


def llama_of(theirs: transformers.LlamaForCausalLM) -> Llama:
    config = LlamaConfig.from_checkpoint(theirs.config.to_dict())
    model = Llama(config).eval()
    state = {llama.NAME_MAP.to_ours(name): value for name, value in theirs.state_dict().items()}
    if config.is_tied:
        state.pop("output.weight", None)
    model.load_state_dict(state)
    return model


def padded(side: str) -> Inputs:
    """Four rows of unequal length, the same tokens whichever side is padded."""
    torch.manual_seed(1)
    token_ids, lengths = torch.randint(3, 60, (4, 23)), [23, 11, 1, 17]
    mask = torch.arange(23) < torch.tensor(lengths).unsqueeze(1)
    if side == "left":
        token_ids, mask = (
            torch.stack([row.roll(23 - length) for row, length in zip(rows, lengths, strict=True)])
            for rows in (token_ids, mask)
        )
    return Inputs(token_ids=token_ids.where(mask, 0), attention_mask=mask)


FAMILIES = {
    "marian": (transformers.MarianConfig, transformers.MarianMTModel),
    "bart": (transformers.BartConfig, transformers.BartForConditionalGeneration),
    "mbart": (transformers.MBartConfig, transformers.MBartForConditionalGeneration),
    "pegasus": (transformers.PegasusConfig, transformers.PegasusForConditionalGeneration),
}


def seq2seq_oracle(family: str) -> Any:
    torch.manual_seed(0)
    configuration, architecture = FAMILIES[family]
    config = configuration(
        vocab_size=60, d_model=32, encoder_layers=2, decoder_layers=3, encoder_attention_heads=4,
        decoder_attention_heads=4, encoder_ffn_dim=40, decoder_ffn_dim=40, max_position_embeddings=50, dropout=0.0,
        pad_token_id=1, eos_token_id=2, decoder_start_token_id=3, bos_token_id=0, scale_embedding=family != "bart",
    )  # fmt: skip
    model = architecture(config).eval()
    for name, parameter in model.named_parameters():
        if "embed_positions" not in name or family in ("bart", "mbart"):
            nn.init.normal_(parameter, std=0.2)
    return model


def seq2seq_of(theirs: Any) -> Seq2Seq:
    model = Seq2Seq(Seq2SeqConfig.from_checkpoint(theirs.config.to_dict())).eval()
    named = {seq2seq.NAME_MAP.to_ours(name): value for name, value in theirs.state_dict().items()}
    model.load_state_dict({name: value for name, value in named.items() if name in model.state_dict()})
    return model


def pairs() -> Inputs:
    """Four targets with their sources, all of unequal length."""
    torch.manual_seed(1)
    source_mask = torch.arange(17) < torch.tensor([17, 9, 1, 12]).unsqueeze(1)
    mask = torch.arange(11) < torch.tensor([11, 4, 7, 1]).unsqueeze(1)
    source = Inputs(token_ids=torch.randint(4, 60, (4, 17)).where(source_mask, 1), attention_mask=source_mask)
    return Inputs(token_ids=torch.randint(4, 60, (4, 11)).where(mask, 1), attention_mask=mask, source=source)
