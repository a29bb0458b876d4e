"""The protocol by which the loop knows a task."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Generic, Protocol, TypeVar

from cypher.data.batch import Batch, Inputs, batches_for_inference
from cypher.data.batch_workers import each_batch
from cypher.layers.token_sum import Losses
from cypher.models.headed import HeadedModel
from cypher.models.model import Encoded, Head, Model

Row = TypeVar("Row", contravariant=True)
Example = TypeVar("Example")
Prediction = TypeVar("Prediction")

INFERENCE_TOKENS = 1024
"""Tokens of one batch of :meth:`Task.in_batches`, padding included."""


class Task(Protocol, Generic[Row, Example, Prediction]):
    """One objective.

    A row (as a reader gives it) becomes one or more examples (as a model can take them); examples become batches.
    A task derives from this class and says :meth:`losses`; the forward before them may then run elsewhere.

    Example:
        >>> from cypher.layers.token_sum import TokenSum
        >>> class SmallLogits(Task[list[int], list[int], float]):
        ...     def losses(self, head: Head, encoded: Encoded, batch: Batch) -> Losses:
        ...         size = TokenSum(total=head(encoded).square().sum(), count=len(batch.rows))
        ...         return {"size": size, **encoded.losses}
        >>> SmallLogits().whole_model
        False
    """

    kind: str
    """As the recipe names it."""
    metric: str
    """The key of :meth:`score` that chooses the best checkpoint; larger is better."""
    whole_model: ClassVar[bool] = False
    """A task whose step is more than one forward and a loss sets it; it cannot be cut into stages."""

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

    def reads(self, batch: Batch) -> Inputs:
        """What the model reads of ``batch`` in training; every process that runs a part of the model asks for it.

        Args:
            batch: Of :meth:`collate`; what is drawn at random depends on seed, step and row alone.
        """
        return batch.inputs

    def losses(self, head: Head, encoded: Encoded, batch: Batch) -> Losses:
        """Losses of one batch, not yet divided; asked for where the model's last block has run.

        Args:
            head: Of :meth:`head`, in training mode.
            encoded: What the model made of :meth:`reads`.
            batch: Of :meth:`collate`.

        Returns:
            Sums with their counts, by the names that :meth:`counts` gives; those of ``encoded.losses`` too.
        """
        raise AssertionError("a task says what its losses are, or overrides its step and is a whole_model one")

    def step(self, model: HeadedModel, batch: Batch) -> Losses:
        """One forward and its :meth:`losses`; a task that overrides it sets :attr:`whole_model`.

        Args:
            model: In training mode.
            batch: Of :meth:`collate`.

        Returns:
            Sums with their counts, by the names that :meth:`counts` gives.
        """
        return self.losses(model.head, model.model(self.reads(batch)), batch)

    def in_batches(self, examples: Sequence[Example], look: Callable[[list[int], Batch], None]) -> None:
        """Look at all examples, those of like length together, in as many threads as there are.

        Args:
            examples: Of any rows.
            look: Given the places of some examples, and these as a batch; puts what it finds where it belongs.
        """
        lengths = [self.length(example) for example in examples]
        each_batch(
            lambda chosen: look(chosen, self.collate([examples[place] for place in chosen])),
            batches_for_inference(lengths, batch_tokens=INFERENCE_TOKENS),
        )

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
