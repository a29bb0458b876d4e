"""``[model]``: which weights a recipe starts from."""

from __future__ import annotations

from pydantic import Field

from cypher.config.section import Section


class ModelConfig(Section):
    """The pre-trained model."""

    name: str = "minilm"
    """A name of the catalogue (``cypher models list``), ``organisation/name`` on the Hugging Face hub, or a folder."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Share of updates and embeddings set to zero in training."""
    attention_dropout: float = Field(default=0.0, ge=0, lt=1)
    """Share of attention probabilities set to zero in training; above 0 the fused attention kernel cannot be used."""
