"""What a model and its language head know of the vocabulary, and the one product they compare hidden states by."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from cypher.data.batch import Inputs
from cypher.layers.vocabulary_logits import VocabularyLogits
from cypher.models.bert import Bert, BertConfig
from cypher.models.llama import Llama, LlamaConfig
from cypher.models.model import Model
from cypher.models.seq2seq import Seq2Seq, Seq2SeqConfig

SIZES: dict[str, Any] = {"vocabulary_size": 23, "width": 8, "n_heads": 2, "inner_width": 16}
MODELS = {
    "bert": lambda: Bert(BertConfig(n_layers=1, with_prediction=True, with_pooler=False, **SIZES)),
    "llama": lambda: Llama(LlamaConfig(n_layers=1, n_key_value_heads=1, **SIZES)),
    "seq2seq": lambda: Seq2Seq(
        Seq2SeqConfig(n_encoder_layers=1, n_decoder_layers=1, source_vocabulary_size=31, **SIZES)
    ),
}


@pytest.mark.parametrize("architecture", MODELS)
def test_logits_are_the_product_with_the_table_and_hooks_see_it(architecture: str) -> None:
    torch.manual_seed(0)
    model: Model = MODELS[architecture]().eval()
    head = model.language_head()
    assert head.vocabulary_size == model.vocabulary_size == len(model.token_vectors()) == 23
    assert not any("vocabulary_logits" in name for name in model.state_dict())
    seen: list[tuple[Tensor, ...]] = []
    model.vocabulary_logits.register_forward_hook(lambda _, given, made: seen.append((*given, made)))
    ids = torch.tensor([[5, 6, 7]])
    inputs = Inputs(token_ids=ids, attention_mask=ids > 0)
    with torch.no_grad():
        logits = head(model(Inputs(token_ids=ids, attention_mask=ids > 0, source=inputs)))
        ((hidden, vectors, *bias, made),) = seen
        expected = hidden @ vectors.T + (bias[0] if bias else 0)
    assert vectors is model.token_vectors()
    assert torch.equal(made, logits)
    torch.testing.assert_close(logits, expected)


def test_the_product_is_in_the_type_of_the_hidden_states() -> None:
    hidden, table, bias = torch.randn(2, 8).bfloat16(), torch.randn(5, 8), torch.randn(5)
    found = VocabularyLogits()(hidden, table, bias)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), hidden.float() @ table.T + bias, atol=0.1, rtol=0.05)
