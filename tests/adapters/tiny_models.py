"""One small model of every architecture, and what it reads; the tables of methods run over them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from cypher.adapters.adapter import Adapter
from cypher.data.batch import Inputs
from cypher.models.bert import Bert, BertConfig
from cypher.models.llama import Llama, LlamaConfig
from cypher.models.model import Model
from cypher.models.seq2seq import Seq2Seq, Seq2SeqConfig

WIDTH = 64


def bert() -> Model:
    sizes = {"width": WIDTH, "n_layers": 2, "n_heads": 4, "inner_width": 40}
    return Bert(
        BertConfig(vocabulary_size=60, dropout=0, attention_dropout=0, with_prediction=True, with_pooler=False, **sizes)
    )


def llama() -> Model:
    sizes = {"width": WIDTH, "n_layers": 2, "n_heads": 4, "n_key_value_heads": 2, "inner_width": 40}
    return Llama(LlamaConfig(vocabulary_size=60, max_positions=64, is_tied=True, **sizes))


def seq2seq() -> Model:
    sizes = {"width": WIDTH, "n_encoder_layers": 2, "n_decoder_layers": 2, "n_heads": 4, "inner_width": 40}
    return Seq2Seq(Seq2SeqConfig(vocabulary_size=60, **sizes))


MODELS: dict[str, Callable[[], Model]] = {"bert": bert, "llama": llama, "seq2seq": seq2seq}


def build(architecture: str) -> Model:
    """Random weights, large enough that what is attached matters; the same in every call."""
    torch.manual_seed(0)
    model = MODELS[architecture]().eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.2)
    return model


def randomise(model: Model, name: str, *, seed: int = 3) -> None:
    """Give everything attached as ``name`` values as if it had been trained."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in Adapter.parameters_of(model, name).values():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.2)


def inputs(architecture: str, *, padding: int = 0) -> Inputs:
    """Three rows of unequal length; ``padding`` adds as many columns of padding as it says on the right."""
    made = _rows([9, 5, 7], padding=padding, seed=1)
    if architecture != "seq2seq":
        return made
    source = _rows([6, 8, 3], padding=padding, seed=2)
    return Inputs(token_ids=made.token_ids, attention_mask=made.attention_mask, source=source)


def _rows(lengths: list[int], *, padding: int, seed: int) -> Inputs:
    longest = max(lengths) + padding
    token_ids = torch.randint(3, 60, (len(lengths), max(lengths)), generator=torch.Generator().manual_seed(seed))
    token_ids = torch.nn.functional.pad(token_ids, (0, padding))
    mask = torch.arange(longest) < torch.tensor(lengths).unsqueeze(1)
    return Inputs(token_ids=token_ids.where(mask, 0), attention_mask=mask)


def hidden_of(model: Model, given: Inputs) -> Tensor:
    """Hidden states at the places of real tokens, the rest zero, ``(batch, seq, width)``."""
    with torch.no_grad():
        encoded = model(given)
        return encoded.scatter()[:, : given.token_ids.shape[1]] * given.attention_mask.unsqueeze(-1)
