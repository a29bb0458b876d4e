"""``[task]`` of kind ``classify``: labels for a text or a pair of texts."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from cypher.config.section import Section

Pooling = Literal["first", "mean", "last"]
ClassWeights = Literal["none", "balanced", "effective_number"]


class ClassifyConfig(Section):
    """One label of several, or any number of them, for a text or for two texts that are read together."""

    kind: Literal["classify"] = "classify"
    multi_label: bool = False
    """Whether a row may have any number of labels, each judged by itself."""
    labels: tuple[str, ...] | None = Field(default=None, min_length=2)
    """Every label there is, in the order of the head's outputs; null takes those of the data, sorted."""
    label_separator: str = Field(default=",", min_length=1)
    """What stands between the labels of a row where a file has them as one text (multi_label)."""
    max_length: int = Field(default=256, ge=8)
    """Tokens of a row with its special tokens; of two texts the longer one is cut to its first tokens."""
    pooling: Pooling | None = None
    """What the head reads: the first real token, the mean of all, or the last; null takes the mean in an encoder
    and the last in a decoder."""
    metric: Literal["accuracy", "macro_f1", "micro_f1", "mcc"] | None = None
    """What chooses the best checkpoint; null takes accuracy, or micro_f1 where a row may have several labels."""
    class_weights: ClassWeights | tuple[float, ...] = "none"
    """Factor of each label's loss: none; balanced, rows / (labels * rows of the label); effective_number (Cui et al.
    2019, arXiv 1901.05555, equation 4), scaled to a mean of 1; or a list in the order of the labels, which must be
    given then. With multi_label it weighs the label's positive terms alone, and balanced is their number of negatives
    to each."""
    effective_number_beta: float = Field(default=0.999, ge=0, lt=1)
    """Of effective_number: 0 weighs all labels alike, near 1 is near one over the rows of the label."""
    focal_gamma: float = Field(default=0.0, ge=0)
    """Terms are scaled by (1 - probability of the truth) to this power (Lin et al. 2017, arXiv 1708.02002)."""
    logit_adjustment: float = Field(default=0.0, ge=0)
    """In training this times the logarithm of a label's share of the rows is added to its logit (Menon et al. 2021,
    arXiv 2007.07314, equation 10), so that rare labels are predicted as often as they should be for balanced error."""
    label_counts: tuple[int, ...] | None = None
    """Training rows of each label, in their order; null counts them."""

    @model_validator(mode="after")
    def _goes_together(self) -> ClassifyConfig:
        if self.labels is not None and len(set(self.labels)) < len(self.labels):
            raise ValueError("task.labels has a label twice")
        if self.multi_label and self.metric == "mcc":
            raise ValueError("mcc is a correlation of single labels: choose micro_f1, macro_f1 or accuracy")
        if self.multi_label and self.logit_adjustment:
            raise ValueError("logit_adjustment moves labels that compete, and with multi_label none do: set it to 0")
        if isinstance(self.class_weights, tuple):
            if self.labels is None:
                raise ValueError("class_weights as a list needs task.labels in the same order")
            if len(self.class_weights) != len(self.labels) or min(self.class_weights) < 0:
                raise ValueError(f"class_weights needs {len(self.labels)} numbers of at least 0, one a label")
        if self.label_counts is not None and (self.labels is None or len(self.label_counts) != len(self.labels)):
            raise ValueError("label_counts needs task.labels, and one number a label")
        return self
