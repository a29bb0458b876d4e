"""The pool that the tests of parallelism run in: it must not pass where a process failed."""

from __future__ import annotations

import os

import pytest
import torch
import torch.distributed as dist
from workers import CaseError, Workers

from cypher.config import ParallelPlan
from cypher.parallel.world import joined


def meet(text: str) -> tuple[int, float]:
    with joined(ParallelPlan.parse(text)) as world:
        (total,) = world.total([world.rank + 1.0], over=("replicate", "shard", "tp", "pp"))
        return dist.get_world_size(), total


def fail_in(rank: int) -> None:
    if int(os.environ["RANK"]) == rank:
        raise ValueError("this one")


def leave(rank: int) -> None:
    if int(os.environ["RANK"]) == rank:
        os._exit(3)


def threads() -> int:
    return torch.get_num_threads()


def test_processes_meet_again_and_again(workers: Workers):
    assert workers.run(2, meet, "dp=2") == [(2, 3.0)] * 2
    assert workers.run(4, meet, "pp=2,tp=2") == [(4, 10.0)] * 4
    assert workers.run(2, meet, "tp=2") == [(2, 3.0)] * 2
    assert workers.run(2, threads) == [1, 1]


@pytest.mark.parametrize("case", [fail_in, leave])
def test_a_process_that_fails_fails_the_case_and_the_next_case_works(workers: Workers, case):
    with pytest.raises(CaseError, match=r"process 1 of 2"):
        workers.run(2, case, 1)
    assert workers.run(2, meet, "dp=2") == [(2, 3.0)] * 2
