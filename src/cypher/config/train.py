"""``[train]``: the optimiser, its schedule and when to look at the development rows."""

from __future__ import annotations

from pydantic import Field

from cypher.config.section import Section


class TrainConfig(Section):
    """One loop for all tasks: AdamW, linear warm-up and decay, clipping, early stopping on the best checkpoint."""

    start_from: str | None = None
    """Folder of another run of the same model and adapter, whose best weights this one goes on from, its head too if
    both have one shape; null starts from the model as it is."""
    epochs: int = Field(default=3, ge=1)
    """Passes over the training rows."""
    batch_size: int = Field(default=32, ge=1)
    """Rows of one optimiser step."""
    accumulation: int = Field(default=1, ge=1)
    """Micro-batches one step is cut into; the gradient is the same, the memory smaller."""
    learning_rate: float = Field(default=2e-4, gt=0)
    """Peak, reached after warm-up."""
    head_learning_rate: float | None = Field(default=None, gt=0)
    """Peak for the task's head; null takes learning_rate."""
    warmup: float = Field(default=0.06, ge=0, lt=1)
    """Share of all steps in which the rate rises from 0; it falls to 0 by the last step."""
    weight_decay: float = Field(default=0.01, ge=0)
    """Decoupled; not applied to biases and norms."""
    clip_norm: float = Field(default=1.0, ge=0)
    """Gradients are scaled down to this global L2 norm; 0 turns it off."""
    evaluations_per_epoch: int = Field(default=2, ge=0)
    """How often the development rows are scored and a checkpoint is written; 0 scores them after the last step alone,
    so that they choose nothing and the last weights are kept."""
    patience: int = Field(default=0, ge=0)
    """Stop after so many evaluations without a better score; 0 never stops early."""
    checkpoint_seconds: float = Field(default=120.0, gt=0)
    """Seconds between checkpoints to resume from."""
    seed: int = Field(default=0, ge=0)
    """Of initial weights, order of rows and dropout."""
