"""Products compiled for shapes that do not come again are not kept."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

GROWTH = """
import torch
import cypher.layers
from cypher.layers.linear import Linear

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096 / 1e6

torch.set_num_threads(1)
linear = Linear(384, 1536).to(torch.bfloat16)
with torch.inference_mode():
    linear(torch.randn(8, 384, dtype=torch.bfloat16))
    before = resident()
    for rows in range(10, 310):
        linear(torch.randn(rows, 384, dtype=torch.bfloat16))
print(resident() - before)
"""


def growth(**environment: str) -> float:
    """Megabytes that three hundred products of different shapes leave behind."""
    kept = {name: value for name, value in os.environ.items() if not name.endswith("CACHE_CAPACITY")} | environment
    done = subprocess.run([sys.executable, "-c", GROWTH], capture_output=True, text=True, check=True, env=kept)
    return float(done.stdout)


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="the system does not tell what is resident")
def test_shapes_that_do_not_come_again_leave_little_behind() -> None:
    without = growth(LRU_CACHE_CAPACITY="1024", ONEDNN_PRIMITIVE_CACHE_CAPACITY="1024")
    if without < 100:
        pytest.skip("this processor's products in bf16 are not compiled for each shape")
    assert growth() < 0.6 * without
