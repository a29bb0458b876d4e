"""The protocol by which the loop knows a task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Generic, Protocol, TypeVar

from cypher.data.batch import Batch
from cypher.layers.token_sum import Losses
from cypher.models.headed import HeadedModel
from cypher.models.model import Head, Model

Row = TypeVar("Row", contravariant=True)
Example = TypeVar("Example")
Prediction = TypeVar("Prediction")


class Task(Protocol, Generic[Row, Example, Prediction]):
    """One objective.

    A row (as a reader gives it) becomes one or more examples (as a model can take them); examples become batches.
    """

    kind: str
    """As the recipe names it."""
    metric: str
    """The key of :meth:`score` that chooses the best checkpoint; larger is better."""

    def head(self, model: Model) -> Head:
        """A fresh head for ``model``."""

    def encode(self, row: Row, *, index: int) -> list[Example]:
        """Examples of one row; ``index`` is its place in the list of rows.

        Args:
            row: As a reader gives it.
            index: Kept in the examples, so that predictions find back to it.
        """

    def length(self, example: Example) -> int:
        """Tokens of an example, for batches of like length."""

    def collate(self, examples: Sequence[Example]) -> Batch:
        """Put examples together."""

    def counts(self, batch: Batch) -> Mapping[str, int]:
        """Terms of each loss in ``batch``, known before the forward so that each micro-batch can be scaled."""

    def step(self, model: HeadedModel, batch: Batch) -> Losses:
        """Losses of one batch, not yet divided.

        Args:
            model: In training mode.
            batch: Of :meth:`collate`.

        Returns:
            Sums with their counts, by the names that :meth:`counts` gives.
        """

    def predict(self, model: HeadedModel, rows: Sequence[Row]) -> list[Prediction]:
        """One prediction a row, in order; ``model`` is in evaluation mode.

        Args:
            model: In evaluation mode; called without gradients.
            rows: Any number.
        """

    def score(self, rows: Sequence[Row], predictions: Sequence[Prediction]) -> dict[str, float]:
        """How good the predictions are, by metric.

        Args:
            rows: With their gold answers.
            predictions: One a row, in order.
        """

    def calibrate(self, rows: Sequence[Row], predictions: Sequence[Prediction]) -> dict[str, Any]:
        """What to remember beside the weights, from held-out rows (thresholds, scales); may be empty.

        Args:
            rows: Held out, with their gold answers.
            predictions: One a row, in order.
        """


def may_be_cut(task: Task[Any, Any, Any]) -> bool:
    """Whether a batch may be cut into micro-batches before the task sees it.

    A task whose rows are compared with each other sets ``whole_batch = True``: cut, each row would have fewer others.
    """
    return not getattr(task, "whole_batch", False)
