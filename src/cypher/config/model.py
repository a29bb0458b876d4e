"""``[model]``: which weights a recipe starts from."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from cypher.config.section import Section


class FreshConfig(Section):
    """A model with random weights, in the layout of a published one: BERT, Llama, or a pre-norm encoder-decoder."""

    architecture: Literal["bert", "llama", "seq2seq"]
    """Its family."""
    width: int = Field(default=256, ge=2)
    """Of the hidden states."""
    n_layers: int = Field(default=4, ge=1)
    """Blocks; of seq2seq on each side."""
    n_heads: int = Field(default=4, ge=1)
    """Attention heads; must divide width."""
    inner_width: int = Field(default=1024, ge=1)
    """Of the feed-forward."""
    max_positions: int = Field(default=512, ge=1)
    """Tokens a row may have."""
    tokenizer: str | None = None
    """Model whose tokenizer is taken, by name or folder; null trains one on the training part alone."""
    vocabulary_size: int = Field(default=8000, ge=300)
    """Tokens of a tokenizer that is trained, at most: byte-level BPE, 256 bytes and the special tokens included."""

    @model_validator(mode="after")
    def _heads_divide(self) -> FreshConfig:
        # Rotary positions turn pairs of values.
        if self.width % self.n_heads or (self.width // self.n_heads) % 2:
            raise ValueError(f"width {self.width} in {self.n_heads} heads: each needs an even number of values")
        return self


class ModelConfig(Section):
    """The pre-trained model, or a fresh one."""

    name: str = "minilm"
    """A name of the catalogue (``cypher models list``), ``organisation/name`` on the Hugging Face hub, or a folder."""
    fresh: FreshConfig | None = None
    """Sizes of a model that starts from random weights instead; name is then not looked at."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Share of updates and embeddings set to zero in training."""
    attention_dropout: float = Field(default=0.0, ge=0, lt=1)
    """Share of attention probabilities set to zero in training; above 0 the fused attention kernel cannot be used."""
