"""The module that data parallelism wraps: whatever is done with the model is done inside of its forward."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from torch import nn

from cypher.models.headed import HeadedModel

Found = TypeVar("Found")


class Working(nn.Module):
    """Runs work on a headed model, so that one forward is one micro-batch, or one evaluation, whatever a task does.

    DDP and FSDP watch the forward of the module they are given. Tasks call a model and its head apart, several times
    or with tokens picked in between; around all of it is one place to begin and to end.

    Args:
        headed: The model and its head.
    """

    def __init__(self, headed: HeadedModel) -> None:
        super().__init__()
        self.headed = headed

    def forward(self, work: Callable[[HeadedModel], Found]) -> Found:
        """``work`` done with the model."""
        return work(self.headed)
