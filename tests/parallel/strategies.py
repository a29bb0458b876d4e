"""The strategies that must train as one process does: the table every test of parallelism goes through."""

from __future__ import annotations

from typing import Any

import pytest
from token_task import FAMILIES

from cypher.config import ParallelPlan

# By number of processes.
STRATEGIES: dict[int, tuple[str, ...]] = {
    2: (
        "dp=2",
        "dp=2,zero=1",
        "dp=2,zero=2",
        "dp=2,zero=3",
        "dp=2,zero=3,activation_checkpointing",
        "tp=2",
        "tp=2,sequence_parallel",
        "pp=2,schedule=gpipe",
        "pp=2,schedule=1f1b",
        "pp=2,schedule=looped_bfs",
        "pp=2,schedule=interleaved",
        "pp=2,schedule=interleaved_zero_bubble",
        "pp=2,schedule=zbv_zero_bubble",
        "pp=2,schedule=dualpipe_v",
    ),
    4: (
        "dp=4",
        "dp=4,zero=1",
        "dp=4,zero=2",
        "dp=4,zero=3",
        "dp=4,zero=3,replicas=2",
        "tp=4",
        "tp=4,sequence_parallel",
        "pp=4,schedule=gpipe",
        "pp=4,schedule=1f1b",
        "dp=2,tp=2",
        "dp=2,tp=2,zero=3",
        "dp=2,tp=2,zero=3,sequence_parallel,activation_checkpointing",
        "dp=2,pp=2",
        "dp=2,pp=2,zero=1",
        "dp=2,pp=2,zero=3",
        "dp=2,pp=2,schedule=interleaved",
        "dp=2,pp=2,schedule=interleaved_zero_bubble",
        "dp=2,pp=2,schedule=zbv_zero_bubble,zero=1",
        "dp=2,pp=2,schedule=dualpipe_v",
        "pp=2,tp=2",
        "pp=2,tp=2,schedule=interleaved",
        "pp=2,tp=2,sequence_parallel,schedule=zbv_zero_bubble",
    ),
    8: ("dp=2,tp=2,pp=2", "dp=2,tp=2,pp=2,zero=3"),
}


def plans(world: int) -> list[ParallelPlan]:
    """All plans for a number of processes."""
    return [ParallelPlan.parse(text) for text in STRATEGIES[world]]


def cases() -> list[Any]:
    """World, plan and family; slow with eight processes, and with four but for the family that has all there is."""
    return [
        pytest.param(
            world,
            text,
            family,
            id=f"{text}-{family}",
            marks=[pytest.mark.slow] if world > 4 or (world == 4 and family != "encoder_decoder") else [],
        )
        for world, texts in STRATEGIES.items()
        for text in texts
        for family in FAMILIES
    ]
