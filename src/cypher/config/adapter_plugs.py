"""``[adapter]``, the methods that sit between layers: bottlenecks, prefixes, prompts, representations."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from cypher.config.section import Section

AdapterActivation = Literal["relu", "gelu", "gelu_tanh", "silu", "tanh", "identity"]


class JoinConfig(Section):
    """What all bottlenecks say: where they sit, what they read, what they are added to."""

    places: tuple[Literal["attention", "cross_attention", "feedforward"], ...] = Field(("feedforward",), min_length=1)
    """Sub-layers of each block that have one behind them; ``cross_attention`` only exists in decoders of a source."""
    reads: Literal["update", "normed", "residual"] = "update"
    """``update``: what the sub-layer made (Houlsby); ``normed``: that and its residual, through the block's own norm
    (Pfeiffer); ``residual``: what the sub-layer's update is added to, so in parallel to it (He)."""
    residual: Literal["update", "read"] = "update"
    """What the change is added to: the sub-layer's update, or what the bottleneck read."""
    norm_before: bool = False
    """Whether a norm of its own comes first."""
    norm_after: bool = False
    """Whether a norm of its own comes last."""
    norm_with_residual: bool = False
    """Whether the last norm is taken over the change and its residual, not over the change alone."""
    scale: float | Literal["learned", "channel"] = 1.0
    """The change is multiplied by it: a number, one trained number, or one trained number a channel."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Share of the change set to zero in training."""
    gated: bool = False
    """Whether a trained gate weighs the change, one weight a row (UniPELT)."""
    leave_out: tuple[int, ...] = ()
    """Numbers of blocks without any, counted from 0 in forward order."""

    @model_validator(mode="after")
    def _residual_is_read(self) -> JoinConfig:
        if self.residual == "read" and self.reads == "residual":
            raise ValueError('reads = "residual" is in parallel: its change is added to the update; drop residual')
        return self


class BottleneckConfig(JoinConfig):
    """Two linear layers with a narrow middle behind a sub-layer (Houlsby et al. 2019, arXiv 1902.00751; Pfeiffer et
    al. 2020, arXiv 2005.00247; He et al. 2021, arXiv 2110.04366).
    """

    method: Literal["bottleneck"] = "bottleneck"
    reduction_factor: float = Field(default=16.0, gt=0)
    """The middle is the model's width divided by it."""
    activation: AdapterActivation = "relu"
    """Of the middle."""
    init: Literal["bert", "houlsby", "mam_adapter"] = "bert"
    """How weights start: normal (0.02), truncated normal (0.01), or with a change of zero."""


class CompacterConfig(JoinConfig):
    """Bottlenecks of sums of Kronecker products (Karimi Mahabadi et al. 2021, arXiv 2106.04647)."""

    method: Literal["compacter"] = "compacter"
    reduction_factor: float = Field(default=32.0, gt=0)
    """The middle is the model's width divided by it."""
    activation: AdapterActivation = "gelu"
    """Of the middle."""
    terms: int = Field(default=4, ge=1)
    """Kronecker products in each sum; must divide the width and the middle."""
    rank: int = Field(default=1, ge=1)
    """Of the larger factor of each product."""
    shared_rule: bool = True
    """Whether all layers share the smaller factors."""


class InvertibleConfig(Section):
    """A volume-preserving change of the embedding, undone before a tied language head (NICE: Dinh et al. 2014,
    arXiv 1410.8516; as adapter: Pfeiffer et al. 2020, arXiv 2005.00052).
    """

    method: Literal["invertible"] = "invertible"
    reduction_factor: float = Field(default=2.0, gt=0)
    """The middle of each coupling is half the width divided by it."""
    activation: AdapterActivation = "relu"
    """Of the middle."""


class PrefixConfig(Section):
    """Trained keys and values in front of an attention's own (Li and Liang 2021, arXiv 2101.00190)."""

    method: Literal["prefix"] = "prefix"
    length: int = Field(default=30, ge=1)
    """Rows in front."""
    places: tuple[Literal["attention", "cross_attention"], ...] = Field(("attention", "cross_attention"), min_length=1)
    """Attentions that get some."""
    flat: bool = False
    """Whether keys and values are trained themselves, not through a small network."""
    bottleneck: int = Field(default=512, ge=1)
    """Inner width of that network."""
    activation: AdapterActivation = "tanh"
    """Of that network."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Share of the keys and values set to zero in training."""
    gated: bool = False
    """Whether a trained gate scales them, one scale a row (UniPELT)."""
    leave_out: tuple[int, ...] = ()
    """Numbers of blocks without any, counted from 0 in forward order."""


class PromptConfig(Section):
    """Trained vectors in front of the tokens (Lester et al. 2021, arXiv 2104.08691)."""

    method: Literal["prompt"] = "prompt"
    length: int = Field(default=10, ge=1)
    """Vectors."""
    init_range: float = Field(default=0.5, gt=0)
    """They start uniform between minus this and this."""
    token_ids: tuple[int, ...] = ()
    """They start as the vectors of these tokens instead, repeated as often as needed."""
    text: str | None = None
    """The same by the tokens of a text."""


class ReftConfig(Section):
    """Low-rank changes of the hidden states behind a block, at the first and last tokens alone (ReFT: Wu et al. 2024,
    arXiv 2404.03592, section 3).
    """

    method: Literal["reft"] = "reft"
    rank: int = Field(default=1, ge=1)
    """Of the subspace."""
    prefix_positions: int = Field(default=3, ge=0)
    """Tokens at the beginning of a row that are changed."""
    suffix_positions: int = Field(default=0, ge=0)
    """Tokens at the end of a row that are changed; for encoders only."""
    tied: bool = False
    """Whether beginning and end share their parameters."""
    orthogonal: bool = True
    """Whether the projection is kept orthonormal (LoReFT)."""
    subtract_projection: bool = True
    """Whether the state's own projection is taken away first (not in DiReFT)."""
    activation: AdapterActivation = "identity"
    """Of the learned source."""
    dropout: float = Field(default=0.05, ge=0, lt=1)
    """Share of the changed states set to zero in training."""
    leave_out: tuple[int, ...] = ()
    """Numbers of blocks without any, counted from 0 in forward order."""

    @model_validator(mode="after")
    def _somewhere(self) -> ReftConfig:
        if not self.prefix_positions + self.suffix_positions:
            raise ValueError("no position is changed; set prefix_positions or suffix_positions")
        return self
