"""A plan as it is typed."""

from __future__ import annotations

import pytest

from cypher.config import ParallelPlan
from cypher.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "plan"),
    [
        ("dp=2,tp=2", ParallelPlan(dp=2, tp=2)),
        ("dp=2,sharded_ddp", ParallelPlan(dp=2, zero=2)),
        ("tp=2, sequence_parallel", ParallelPlan(tp=2, sequence_parallel=True)),
        ("", ParallelPlan()),
    ],
)
def test_a_plan_is_written_as_it_is_read(text: str, plan: ParallelPlan):
    assert ParallelPlan.parse(text) == plan
    assert ParallelPlan.parse(str(plan)) == plan


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("dp=2,zero", "zero has no value; write zero="),
        ("dp", "dp has no value"),
        ("dp=2,zero=true", "zero is 0, 1, 2 or 3"),
        ("dp=2,dp=4", "dp stands twice"),
        ("schedul=gpipe", "did you mean schedule"),
        ("dp=2,zero=7", "zero = 7"),
    ],
)
def test_what_is_no_plan_is_refused(text: str, said: str):
    with pytest.raises(ConfigError, match=said):
        ParallelPlan.parse(text)
