"""What a decoder remembers from step to step: the one kind of state, in and out of the forward.

Buffers have their full size from the first step and are masked, so no step allocates and shapes never change.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from cypher.errors import ModelError


class LayerState:
    """Keys and values of one block; room for them is made by the first write.

    Attributes:
        key: ``(batch, key_value_heads, capacity, head_width)``; ``None`` before the first write.
        value: Likewise.
        source_key: ``(batch, key_value_heads, source_seq, head_width)``, of the source, which does not grow.
        source_value: Likewise.
    """

    TENSORS = ("key", "value", "source_key", "source_value")

    def __init__(self) -> None:
        self.key: Tensor | None = None
        self.value: Tensor | None = None
        self.source_key: Tensor | None = None
        self.source_value: Tensor | None = None

    def write(self, key: Tensor, value: Tensor, *, start: int, capacity: int) -> tuple[Tensor, Tensor]:
        """Put keys and values at ``start`` and give back all up to their end.

        Args:
            key: ``(batch, key_value_heads, tokens, head_width)``.
            value: Likewise.
            start: Tokens already there.
            capacity: Room to make at the first write.
        """
        end = start + key.shape[2]
        if self.key is None or self.value is None:
            shape = (*key.shape[:2], capacity, key.shape[3])
            self.key, self.value = key.new_zeros(shape), value.new_zeros(shape)
        self.key[:, :, start:end] = key
        self.value[:, :, start:end] = value
        return self.key[:, :, :end], self.value[:, :, :end]


@dataclass(kw_only=True)
class State:
    """One state a model: of every block by ``segment.number``, and what all of them share.

    Args:
        capacity: Tokens it has room for, prompts in front included.
        length: Tokens written.
        mask: ``(batch, capacity)`` bool, True = a real token; ``None`` before the first step.
        next_position: ``(batch,)`` int64, position of each row's next token.
        layers: Made as they are asked for.
        source: ``(batch, source_seq, width)``, what an encoder made of the source; kept, so that it runs once.
        source_mask: ``(batch, source_seq)`` bool.
    """

    capacity: int
    length: int = 0
    mask: Tensor | None = None
    next_position: Tensor | None = None
    layers: dict[str, LayerState] = field(default_factory=dict)
    source: Tensor | None = None
    source_mask: Tensor | None = None

    def layer(self, name: str) -> LayerState:
        """The state of one block."""
        return self.layers.setdefault(name, LayerState())

    def begin_step(self, mask: Tensor) -> None:
        """Note the tokens that this step will write.

        Args:
            mask: ``(batch, tokens)`` bool, True = a real token.

        Raises:
            ModelError: There is no room for them.
        """
        batch, tokens = mask.shape
        if self.length + tokens > self.capacity:
            raise ModelError(
                f"{self.length + tokens} tokens in a state of {self.capacity}",
                change="make the state larger or generate fewer tokens",
            )
        if self.mask is None:
            self.mask = torch.zeros(batch, self.capacity, dtype=torch.bool, device=mask.device)
            self.next_position = torch.zeros(batch, dtype=torch.int64, device=mask.device)
        self.mask[:, self.length : self.length + tokens] = mask

    def end_step(self, mask: Tensor) -> None:
        """Count the tokens that were written; arguments as in :meth:`begin_step`."""
        assert self.next_position is not None, "begin_step comes first"
        self.length += mask.shape[1]
        self.next_position = self.next_position + mask.sum(1)

    def reorder(self, rows: Tensor) -> None:
        """Row ``i`` becomes what row ``rows[i]`` was; for beams.

        Args:
            rows: ``(new_batch,)`` int64.
        """
        for holder, name, held in self._tensors():
            setattr(holder, name, held[rows])

    def fork(self, copies: int) -> State:
        """A state of its own in which every row stands ``copies`` times in a row."""
        forked = State(capacity=self.capacity, length=self.length)
        into = {id(self): forked, **{id(layer): forked.layer(name) for name, layer in self.layers.items()}}
        for holder, name, held in self._tensors():
            setattr(into[id(holder)], name, held.repeat_interleave(copies, 0))
        return forked

    def _tensors(self) -> Iterator[tuple[object, str, Tensor]]:
        """Everything with a row of its own, with who holds it and under which name."""
        names = ("mask", "next_position", "source", "source_mask")
        held = [(self, names), *((layer, LayerState.TENSORS) for layer in self.layers.values())]
        for holder, names in held:
            for name in names:
                if (tensor := getattr(holder, name)) is not None:
                    yield holder, name, tensor

    def truncate(self, length: int) -> None:
        """Forget all tokens from ``length`` on."""
        assert 0 <= length <= self.length, "a state only grows by steps"
        if self.mask is not None and self.next_position is not None:
            self.next_position = self.next_position - self.mask[:, length : self.length].sum(1)
            self.mask[:, length:] = False
        self.length = length
