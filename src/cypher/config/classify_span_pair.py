"""``[task]`` of kind ``classify_span_pair``: a label for two stretches of text and what stands around them."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from cypher.config.classify import Pooling
from cypher.config.section import Section


class ClassifySpanPairConfig(Section):
    """Whether a word means the same twice, whether a pronoun means a name: one label for two marked spans.

    The spans stand in one text, or the second one in a text of its own (Wang et al. 2019, arXiv 1905.00537,
    section 3.1: WiC and WSC).
    """

    kind: Literal["classify_span_pair"] = "classify_span_pair"
    labels: tuple[str, ...] | None = Field(default=None, min_length=2)
    """Every label there is, in the order of the head's outputs; null takes those of the data, sorted."""
    max_length: int = Field(default=256, ge=16)
    """Tokens of a row with its special tokens; what is cut away is farthest from the spans."""
    pooling: Pooling | None = None
    """What the head reads beside the two spans: the first real token, the mean of all, or the last; null takes the
    mean in an encoder and the last in a decoder."""
    metric: Literal["accuracy", "macro_f1", "mcc"] = "accuracy"
    """What chooses the best checkpoint."""

    @model_validator(mode="after")
    def _labels_differ(self) -> ClassifySpanPairConfig:
        if self.labels is not None and len(set(self.labels)) < len(self.labels):
            raise ValueError("task.labels has a label twice")
        return self
