"""``[adapter]``: the small part that is trained while the model stays frozen."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from cypher.config.section import Section

LinearName = Literal["query", "key", "value", "output", "up", "down"]


class LoraConfig(Section):
    """Low-rank updates of linear layers (Hu et al. 2021, arXiv 2106.09685, section 4.1)."""

    method: Literal["lora"] = "lora"
    rank: int = Field(default=16, ge=1)
    """Inner width of each update."""
    alpha: float = Field(default=16.0, gt=0)
    """The update is scaled by alpha / rank."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Share of the update's inputs set to zero in training."""
    targets: tuple[LinearName, ...] = ("query", "key", "value", "output", "up", "down")
    """Linear layers of each block that get an update: attention's four, the feed-forward's up and down."""


AdapterConfig = LoraConfig
"""Every adapter method; the ``method`` key chooses."""
