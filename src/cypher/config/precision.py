"""``[precision]``: the number format of the heavy arithmetic."""

from __future__ import annotations

from typing import Literal

from cypher.config.section import Section

TrainingPrecision = Literal["auto", "fp32", "bf16"]
InferencePrecision = Literal["auto", "fp32", "bf16", "int8"]


class PrecisionConfig(Section):
    """Weights stay fp32 while they are trained; matrix products run in this format."""

    compute: TrainingPrecision = "auto"
    """fp32, bf16, or auto: bf16 where a short measurement on this machine finds it faster."""
