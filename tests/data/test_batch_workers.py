"""Batches side by side: each on a thread of its own, errors arrive, the caller's threads stay as they were."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest
import torch

from cypher.data.batch_workers import each_batch
from cypher.errors import ConfigError


@pytest.mark.parametrize("inference", [True, False])
def test_batches_on_threads_leave_the_callers_threads_alone(threads: Any, inference: bool) -> None:
    threads(3)
    inside: list[tuple[int, bool]] = []
    both = threading.Barrier(2, timeout=20)

    def work(batch: int) -> None:
        both.wait()  # only passes if two batches are under way at once
        inside.append((torch.get_num_threads(), torch.is_inference_mode_enabled()))

    each_batch(work, [1, 2], inference=inference)
    assert inside == [(1, inference)] * 2
    assert torch.get_num_threads() == 3
    seen: list[int] = []
    later = threading.Thread(target=lambda: seen.append(torch.get_num_threads()))
    later.start()
    later.join()
    assert seen == [3]


@pytest.mark.parametrize("number", [1, 2])
def test_an_error_in_a_batch_arrives_and_drops_the_rest(threads: Any, number: int) -> None:
    threads(number)
    done: list[int] = []

    def work(batch: int) -> None:
        if batch == 0:
            raise ConfigError("batch 0")
        time.sleep(0.001)  # a busy machine may look at the error late
        done.append(batch)

    with pytest.raises(ConfigError, match="batch 0"):
        each_batch(work, range(2000))
    assert len(done) < 2000 - 1
    each_batch(done.append, [7, 7])  # the threads live on
    assert done[-2:] == [7, 7]
