"""Pooling reads real tokens alone, wherever they have been moved to."""

from __future__ import annotations

from typing import Literal

import pytest
import torch

from cypher.errors import ConfigError
from cypher.models.bert import Bert, BertConfig
from cypher.models.llama import Llama, LlamaConfig
from cypher.models.model import Encoded
from cypher.tasks.pooling import by_input_row, pool, pooling_of

# Two rows: one in front, tokens 0, 2, 3 of which token 1 was removed; the second row in another order and padded.
POSITIONS = torch.tensor([[-1, 0, 2, 3], [-1, 1, 0, 2]])
MASK = torch.tensor([[True, True, True, True], [True, True, True, False]])
HIDDEN = torch.arange(8.0).view(2, 4, 1)


@pytest.mark.parametrize(("how", "expected"), [("first", [1, 6]), ("mean", [2, 5.5]), ("last", [3, 5])])
def test_pool(how: Literal["first", "mean", "last"], expected: list[float]) -> None:
    encoded = Encoded(hidden=HIDDEN, mask=MASK, positions=POSITIONS, row_of=torch.tensor([0, 1]), seq=4)
    assert pool(encoded, how).squeeze(1).tolist() == expected
    poisoned = HIDDEN.masked_fill(~(MASK & (POSITIONS >= 0)).unsqueeze(-1), 1e30)
    moved = Encoded(hidden=poisoned, mask=MASK, positions=POSITIONS, row_of=torch.tensor([0, 1]), seq=4)
    assert pool(moved, how).squeeze(1).tolist() == expected


def test_outputs_come_back_to_their_rows() -> None:
    outputs = torch.tensor([[1.0], [2.0], [3.0]])
    assert by_input_row(outputs, torch.tensor([2, 0, 1]), 3).squeeze(1).tolist() == [2, 3, 1]
    assert by_input_row(outputs, torch.tensor([1, 0, 1]), 2).squeeze(1).tolist() == [2, 2]


def test_what_an_architecture_is_read_by() -> None:
    sizes = {"vocabulary_size": 9, "width": 8, "n_layers": 1, "n_heads": 2, "inner_width": 8}
    encoder = Bert(BertConfig(with_pooler=False, **sizes))
    decoder = Llama(LlamaConfig(n_key_value_heads=1, max_positions=9, is_tied=True, **sizes))
    assert (pooling_of(None, encoder), pooling_of("first", encoder)) == ("mean", "first")
    assert (pooling_of(None, decoder), pooling_of("mean", decoder)) == ("last", "mean")
    with pytest.raises(ConfigError, match="has seen no other token"):
        pooling_of("first", decoder)
