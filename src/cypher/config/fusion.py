"""``[arrangement.fusion]``: the attention that weighs several trained adapters."""

from __future__ import annotations

from pydantic import Field

from cypher.config.section import Section


class FusionConfig(Section):
    """AdapterFusion (Pfeiffer et al. 2021, arXiv 2005.00247, section 3.2)."""

    query: bool = True
    """Whether what the adapters read is projected before it is compared."""
    key: bool = True
    """Whether what the adapters add is projected before it is compared."""
    value: bool = True
    """Whether what the adapters add is projected before it is mixed."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Share of the scores set to zero in training."""
    regularisation: float = Field(default=0.01, ge=0)
    """Weight of the squared distance between the value projection and the identity."""
