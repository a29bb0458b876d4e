"""A state: rows copied, permuted and shortened go on as if they had always been so."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from cypher.data.batch import Inputs
from cypher.layers.state import State
from cypher.models.llama import Llama, LlamaConfig
from cypher.models.model import Model
from cypher.models.seq2seq import Seq2Seq, Seq2SeqConfig

SHARED = {"vocabulary_size": 40, "width": 16, "n_heads": 4, "inner_width": 24}
MODELS: dict[str, Callable[[], Model]] = {
    "llama": lambda: Llama(LlamaConfig(**SHARED, n_layers=2, n_key_value_heads=2)),
    "seq2seq": lambda: Seq2Seq(Seq2SeqConfig(**SHARED, n_encoder_layers=1, n_decoder_layers=2)),
}


@pytest.fixture(params=MODELS)
def model(request: pytest.FixtureRequest) -> Model:
    torch.manual_seed(0)
    return MODELS[request.param]().eval()


def tokens(rows: int, seq: int, *, seed: int) -> Inputs:
    torch.manual_seed(seed)
    ids = torch.randint(1, 40, (rows, seq))
    mask = torch.arange(seq) < torch.randint(1, seq + 1, (rows, 1))
    source = Inputs(token_ids=ids.flip(0), attention_mask=mask.flip(0))
    return Inputs(token_ids=ids, attention_mask=mask, source=source)


def rows_of(inputs: Inputs, rows: torch.Tensor) -> Inputs:
    assert inputs.source is not None
    source = Inputs(token_ids=inputs.source.token_ids[rows], attention_mask=inputs.source.attention_mask[rows])
    return Inputs(token_ids=inputs.token_ids[rows], attention_mask=inputs.attention_mask[rows], source=source)


@torch.inference_mode()
def begun(model: Model, inputs: Inputs) -> State:
    state = State(capacity=12)
    model(inputs, state)
    return state


@torch.inference_mode()
@pytest.mark.parametrize("rows", [[2, 0, 1], [1, 1, 1], [0], [2, 2, 0, 1]])
def test_reordered_rows_go_on_as_those_rows(model: Model, rows: list[int]) -> None:
    first, order = tokens(3, 5, seed=1), torch.tensor(rows)
    next_step = tokens(len(rows), 2, seed=2)
    state = begun(model, first)
    state.reorder(order)
    expected = model(next_step, begun(model, rows_of(first, order))).hidden
    torch.testing.assert_close(model(next_step, state).hidden, expected, atol=1e-6, rtol=1e-5)


@torch.inference_mode()
def test_a_fork_goes_its_own_way(model: Model) -> None:
    first, after = tokens(2, 5, seed=1), tokens(2, 3, seed=2)
    doubled = torch.tensor([0, 0, 1, 1])
    branches = tokens(4, 3, seed=3)
    state = begun(model, first)
    fork = state.fork(2)
    expected = model(branches, begun(model, rows_of(first, doubled))).hidden
    torch.testing.assert_close(model(branches, fork).hidden, expected, atol=1e-6, rtol=1e-5)
    untouched = model(after, begun(model, first)).hidden
    torch.testing.assert_close(model(after, state).hidden, untouched, atol=1e-6, rtol=1e-5)


@torch.inference_mode()
def test_what_is_cut_off_never_was(model: Model) -> None:
    first, wrong, right = (tokens(2, seq, seed=seq) for seq in (5, 3, 4))
    state = begun(model, first)
    expected = model(right, begun(model, first)).hidden
    model(wrong, state)
    state.truncate(5)
    assert state.length == 5
    torch.testing.assert_close(model(right, state).hidden, expected, atol=1e-6, rtol=1e-5)


@torch.inference_mode()
def test_buffers_have_their_full_size_from_the_first_step(model: Model) -> None:
    state = begun(model, tokens(2, 5, seed=1))
    before = [layer.key.data_ptr() for layer in state.layers.values() if layer.key is not None]
    model(tokens(2, 3, seed=2), state)
    after = [layer.key.data_ptr() for layer in state.layers.values() if layer.key is not None]
    assert before == after
    assert len(before) == 2
    assert {layer.key.shape[2] for layer in state.layers.values() if layer.key is not None} == {12}
