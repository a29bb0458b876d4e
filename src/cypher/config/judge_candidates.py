"""``[task]`` of kind ``judge_candidates``: which of several texts about one passage are right."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from cypher.config.section import Section


class JudgeCandidatesConfig(Section):
    """Several short texts are judged against one passage that is encoded once for all of them."""

    kind: Literal["judge_candidates"] = "judge_candidates"
    right: Literal["any", "one"] = "any"
    """How many candidates of a row are right: any number, each judged by itself, or one, chosen among them."""
    max_length: int = Field(default=384, ge=16)
    """Tokens of the passage, the question and the longest candidate; the passage is cut to its first ones."""
    max_question_tokens: int = Field(default=64, ge=4)
    """A longer question is cut to its first tokens."""
    max_candidate_tokens: int = Field(default=64, ge=4)
    """A longer candidate is cut to its first tokens."""

    @model_validator(mode="after")
    def _passage_fits(self) -> JudgeCandidatesConfig:
        rest = self.max_question_tokens + self.max_candidate_tokens + 3
        if rest >= self.max_length:
            raise ValueError(
                f"max_length {self.max_length} leaves no passage beside max_question_tokens {self.max_question_tokens} "
                f"+ max_candidate_tokens {self.max_candidate_tokens} + 3 special tokens: raise max_length"
            )
        return self
