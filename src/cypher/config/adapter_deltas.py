"""``[adapter]``, the methods that change linear layers: LoRA, DoRA, VeRA, DVoRA, IA³."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from cypher.config.section import Section

LinearName = Literal["query", "key", "value", "output", "up", "down", "gate"]


class DeltaConfig(Section):
    """What all low-rank updates say: where, and how much is left out."""

    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Share of the update's inputs set to zero in training."""
    targets: tuple[LinearName, ...] = ("query", "key", "value", "output", "up", "down")
    """Linear layers of each block that get an update: attention's four, the feed-forward's up and down (and gate)."""
    leave_out: tuple[int, ...] = ()
    """Numbers of blocks without any, counted from 0 in forward order."""


class LowRankConfig(DeltaConfig):
    """An update that is the product of two trained matrices."""

    rank: int = Field(default=16, ge=1)
    """Inner width of each update."""
    alpha: float = Field(default=16.0, gt=0)
    """The update is scaled by alpha / rank."""
    init: Literal["lora", "bert"] = "lora"
    """How it starts: ``lora`` with an update of zero, ``bert`` with both matrices normal (0.02)."""


class LoraConfig(LowRankConfig):
    """Low-rank updates of linear layers (Hu et al. 2021, arXiv 2106.09685, section 4.1)."""

    method: Literal["lora"] = "lora"
    gated: bool = False
    """Whether a trained gate weighs the update, one weight a row (UniPELT)."""


class DoraConfig(LowRankConfig):
    """Low-rank updates of a weight's direction beside a trained magnitude (Liu et al. 2024, arXiv 2402.09353)."""

    method: Literal["dora"] = "dora"


class RandomProjectionConfig(DeltaConfig):
    """Two frozen random matrices that all layers share; trained are the two vectors that scale them."""

    rank: int = Field(default=256, ge=1)
    """Inner width of each update."""
    down_scale: float = 0.1
    """What the vector behind the first matrix starts at; the other starts at zero."""
    seed: int = Field(default=0, ge=0)
    """The frozen matrices are drawn from it, so they are not saved."""
    targets: tuple[LinearName, ...] = ("query", "value")
    """Linear layers of each block that get an update."""


class VeraConfig(RandomProjectionConfig):
    """Vector-based random matrix adaptation (Kopiczko et al. 2023, arXiv 2310.11454)."""

    method: Literal["vera"] = "vera"


class DvoraConfig(RandomProjectionConfig):
    """DoRA whose direction is updated by VeRA (Liu et al. 2024, arXiv 2402.09353, section 5.4)."""

    method: Literal["dvora"] = "dvora"


class Ia3Config(Section):
    """Trained scales of activations (Liu et al. 2022, arXiv 2205.05638, section 3.3)."""

    method: Literal["ia3"] = "ia3"
    outputs: tuple[LinearName, ...] = ("key", "value")
    """Linear layers of each block whose output is scaled."""
    inputs: tuple[LinearName, ...] = ("down",)
    """Linear layers whose input is scaled: ``down`` is behind the activation of the feed-forward, as in the paper."""
    leave_out: tuple[int, ...] = ()
    """Numbers of blocks without any, counted from 0 in forward order."""
