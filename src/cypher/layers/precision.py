"""Which number format is fastest on this machine: measured, since having an instruction does not make it quick."""

from __future__ import annotations

import time
from functools import lru_cache
from statistics import median
from typing import Literal

import torch
import torch.nn.functional as F

# bf16 must win by this factor to be worth its rounding.
WORTHWHILE = 1.25


@lru_cache(maxsize=1)
def fastest_precision() -> Literal["fp32", "bf16"]:
    """fp32, or bf16 where a feed-forward layer of a small encoder runs at least 1.25 times as fast in it.

    Takes some 20 milliseconds, once a process.
    """
    weight = torch.randn(1536, 384)
    values = torch.randn(512, 384)

    def seconds(dtype: torch.dtype) -> float:
        cast_weight, cast_values = weight.to(dtype), values.to(dtype)
        times = []
        for _ in range(6):
            start = time.perf_counter()
            F.linear(cast_values, cast_weight)
            times.append(time.perf_counter() - start)
        return median(times[1:])

    with torch.inference_mode():
        return "bf16" if seconds(torch.bfloat16) * WORTHWHILE < seconds(torch.float32) else "fp32"
