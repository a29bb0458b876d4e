"""``[task]`` of a language: masked tokens, next tokens, translation."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from cypher.config.section import Section


class MaskLmConfig(Section):
    """Hidden tokens told from those around them (Devlin et al. 2019, arXiv 1810.04805, section 3.1)."""

    kind: Literal["mask_lm"] = "mask_lm"
    max_length: int = Field(default=128, ge=8)
    """Tokens of a block, special ones included; a longer document becomes several blocks."""
    masked: float = Field(default=0.15, gt=0, lt=1)
    """Share of a block's tokens that are predicted."""
    whole_word: bool = False
    """Whether all pieces of a word are hidden together."""
    top_k: int = Field(default=5, ge=1)
    """Tokens that a prediction offers for each mask a text has."""
    documents: Literal["line", "paragraph", "file"] = "line"
    """What is a document in a text file: a line, a stretch between empty lines, the file."""
    document_start: str | None = None
    """With documents = "file": a line in which this regular expression matches begins a document."""
    seed: int | None = None
    """Of the masking; null takes train.seed."""


class CausalLmConfig(Section):
    """The next token told from those before it (Radford et al. 2019, section 2)."""

    kind: Literal["causal_lm"] = "causal_lm"
    max_length: int = Field(default=128, ge=8)
    """Tokens of a block; a longer document becomes several blocks."""
    completions: bool = False
    """Whether rows are a prompt and a completion, of which only the completion is learnt, instead of texts."""
    pack: bool = True
    """Whether short documents share a block, with the end token between them, instead of being padded."""
    max_new_tokens: int = Field(default=64, ge=1)
    """Most tokens that a prompt without a completion is continued by."""
    documents: Literal["line", "paragraph", "file"] = "line"
    """What is a document in a text file: a line, a stretch between empty lines, the file."""
    document_start: str | None = None
    """With documents = "file": a line in which this regular expression matches begins a document."""


class TranslateConfig(Section):
    """One text told from another (Vaswani et al. 2017, arXiv 1706.03762)."""

    kind: Literal["translate"] = "translate"
    max_length: int = Field(default=128, ge=4)
    """Tokens of a source or a target, special ones included; what is longer is cut."""
    target_suffix: str | None = None
    """Files of data.train are lines to read from, and what to write stands in the same lines of the file with this
    suffix instead, such as ".de" beside train.en.gz; null reads tables with columns source and target."""
    label_smoothing: float = Field(default=0.1, ge=0, lt=1)
    """Share of the target's probability that is spread over all tokens in training."""
    max_new_tokens: int = Field(default=128, ge=1)
    """Most tokens of a translation."""
    with_bleu: bool = True
    """Whether held-out sources are translated and scored with BLEU and chrF, which needs sacrebleu; otherwise only
    their loss is."""
