"""The strategies that must train as one process does: the table every test of parallelism goes through."""

from __future__ import annotations

from cypher.config import ParallelPlan

# By number of processes; what a plan needs eight for is marked slow.
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
        "pp=2,tp=2",
        "pp=2,tp=2,schedule=interleaved",
        "pp=2,tp=2,sequence_parallel,schedule=zbv_zero_bubble",
    ),
    8: ("dp=2,tp=2,pp=2", "dp=2,tp=2,pp=2,zero=3"),
}


def plans(world: int) -> list[ParallelPlan]:
    """All plans for a number of processes."""
    return [ParallelPlan.parse(text) for text in STRATEGIES[world]]
