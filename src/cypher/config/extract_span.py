"""``[task]`` of kind ``extract_span``: answers as stretches of a passage."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from cypher.config.section import Section


class ExtractSpanConfig(Section):
    """Answers as stretches of a passage, or none (Devlin et al. 2019, arXiv 1810.04805, sections 4.2 and 4.3)."""

    kind: Literal["extract_span"] = "extract_span"
    max_length: int = Field(default=384, ge=16)
    """Tokens of one window: question, passage part and special tokens."""
    stride: int = Field(default=128, ge=0)
    """Tokens that neighbouring windows of a long passage share."""
    max_question_tokens: int = Field(default=64, ge=4)
    """A longer question is cut to its first tokens."""
    max_answer_tokens: int = Field(default=30, ge=1)
    """Longer spans are never answers."""

    @model_validator(mode="after")
    def _window_moves(self) -> ExtractSpanConfig:
        room = self.max_length - self.max_question_tokens - 3
        if room <= self.stride:
            raise ValueError(
                f"max_length {self.max_length} - max_question_tokens {self.max_question_tokens} - 3 special tokens "
                f"leaves {room} passage tokens, not more than stride {self.stride}: raise max_length or lower stride"
            )
        return self
