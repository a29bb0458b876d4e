"""Greedy decoding: the likeliest token, again and again, over a state."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

import torch

from cypher.data.batch import Inputs
from cypher.errors import ConfigError
from cypher.layers.state import State
from cypher.models.model import Encoded, Model


@torch.inference_mode()
def greedy(model: Model, inputs: Inputs, *, max_new_tokens: int, stop_ids: Collection[int] = ()) -> list[list[int]]:
    """Go on with every row until it stops.

    Args:
        model: In evaluation mode; predicts tokens one after the other.
        inputs: Prompts, padded on either side; for an encoder-decoder the first target tokens, and the source.
        max_new_tokens: Most tokens a row gains.
        stop_ids: A row ends before the first of these.

    Returns:
        The new tokens of each row, without the prompt and without the token that ended it; under Parallel each row
        once an adapter, all of the first one first.

    Raises:
        ConfigError: The model does not write, or a row has no token to go on from.
        ModelError: The model has no room for so many tokens.

    Example:
        >>> from cypher.models.llama import Llama, LlamaConfig
        >>> sizes = {"n_layers": 1, "n_heads": 2, "n_key_value_heads": 1, "inner_width": 16}
        >>> model = Llama(LlamaConfig(vocabulary_size=100, width=8, **sizes)).eval()
        >>> prompt = torch.tensor([[5, 6, 7]])
        >>> written = greedy(model, Inputs(token_ids=prompt, attention_mask=prompt > 0), max_new_tokens=4)
        >>> len(written), len(written[0])
        (1, 4)
    """
    if not model.remembers:
        raise ConfigError(f"{type(model).__name__} reads a whole text at once", needed="a model that writes")
    if not bool(inputs.attention_mask.any(1).all()):
        raise ConfigError("a row without a token", needed="a prompt of at least 1 token in every row")
    head = model.language_head()
    prompt = inputs.token_ids.shape[1]
    state = State(capacity=prompt + rows_in_front(model, inputs) + max_new_tokens)
    stops = torch.tensor(sorted(stop_ids), dtype=torch.int64, device=inputs.token_ids.device)
    rows = len(inputs.token_ids) * (1 if model.arrangement is None else model.arrangement.copies)
    going = torch.ones(rows, dtype=torch.bool, device=inputs.token_ids.device)
    written: list[list[int]] = [[] for _ in range(rows)]
    for _ in range(max_new_tokens):
        token_ids = head(last_tokens(model(inputs, state)))[:, 0].argmax(-1)
        going &= ~torch.isin(token_ids, stops)
        if not bool(going.any()):
            break
        for row, (token_id, goes) in enumerate(zip(token_ids.tolist(), going.tolist(), strict=True)):
            if goes:
                written[row].append(token_id)
        inputs = Inputs(token_ids=token_ids.unsqueeze(1), attention_mask=going.unsqueeze(1).clone())
    return written


def last_tokens(encoded: Encoded) -> Encoded:
    """Only the last real token of each row, ``hidden (rows, 1, width)``: heads need not look at the others."""
    rows, kept, _ = encoded.hidden.shape
    place = torch.arange(kept, device=encoded.hidden.device)
    last = torch.where(encoded.mask, place, 0).amax(1)
    row = torch.arange(rows, device=encoded.hidden.device)
    return replace(
        encoded,
        hidden=encoded.hidden[row, last].unsqueeze(1),
        mask=encoded.mask[row, last].unsqueeze(1),
        positions=encoded.positions[row, last].unsqueeze(1),
        seq=1,
    )


def rows_in_front(model: Model, inputs: Inputs) -> int:
    """Rows that plugs at the embedding put in front of every text."""
    hidden = torch.zeros(1, 1, model.width, dtype=model.token_vectors().dtype, device=inputs.token_ids.device)
    mask = torch.ones(1, 1, dtype=torch.bool, device=hidden.device)
    return int(model.embedding_output(hidden, mask)[1].sum()) - 1
