"""A model and the head of a task on it."""

from __future__ import annotations

from torch import Tensor, nn

from cypher.data.batch import Inputs
from cypher.models.model import Encoded, Head, Model


class HeadedModel(nn.Module):
    """A model and a task's head, trained and saved together.

    Args:
        model: The architecture.
        head: The task's.
    """

    def __init__(self, model: Model, head: Head) -> None:
        super().__init__()
        self.model = model
        self.head = head

    def trained(self) -> dict[str, nn.Parameter]:
        """Parameters that get a gradient, by their names."""
        return {name: parameter for name, parameter in self.named_parameters() if parameter.requires_grad}

    def forward(self, inputs: Inputs) -> tuple[Tensor, Encoded]:
        """Logits of the head, and what the model made of the inputs."""
        encoded: Encoded = self.model(inputs)
        return self.head(encoded), encoded
