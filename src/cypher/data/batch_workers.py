"""Batches side by side: as many threads as torch has been given, each with one batch and no help within it.

Splitting every operation of a small model over threads makes them wait for each other a hundred times a batch;
whole batches wait once, and where other programs hold a processor only the batch that runs there is late.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from threading import Barrier, Lock
from typing import TypeVar

import torch

Part = TypeVar("Part")

_one_at_a_time = ContextVar("one_at_a_time", default=False)
_lock = Lock()
_pools: dict[int, ThreadPoolExecutor] = {}
# A forked process inherits the pools without their threads, and would wait for ever.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pools.clear)


@contextmanager
def one_at_a_time() -> Iterator[None]:
    """Within it batches follow each other in the calling thread, without a gradient but outside of inference mode.

    For work in the course of which processes meet: all of them must do the same things in the same order, and what
    gathers divided weights changes tensors that inference mode would not let it change.
    """
    token = _one_at_a_time.set(True)
    try:
        with torch.no_grad():
            yield
    finally:
        _one_at_a_time.reset(token)


def each_batch(work: Callable[[Part], None], batches: Iterable[Part], *, inference: bool = True) -> None:
    """Call ``work`` once a batch; on several threads if there are several batches.

    The first error is raised, and batches that have not begun are dropped.

    Args:
        work: Writes its result where it belongs.
        batches: Best with the longest first, so that the threads end together.
        inference: Whether ``work`` runs in inference mode; otherwise it may work out gradients.

    Example:
        >>> squares = {}
        >>> each_batch(lambda number: squares.update({number: number**2}), [1, 2, 3])
        >>> sorted(squares.values())
        [1, 4, 9]
    """
    in_order = _one_at_a_time.get()

    def alone(batch: Part) -> None:
        # Inference mode that is switched off would switch gradients on.
        with torch.inference_mode() if inference and not in_order else nullcontext():
            work(batch)

    parts, threads = list(batches), 1 if in_order else torch.get_num_threads()
    if threads == 1 or len(parts) < 2:
        for part in parts:
            alone(part)
        return
    pool = _pool(threads)
    futures: list[Future[None]] = [pool.submit(alone, part) for part in parts]
    try:
        for future in futures:
            future.result()
    finally:
        for future in futures:
            future.cancel()
        wait(futures)


def _pool(threads: int) -> ThreadPoolExecutor:
    """The process's own threads, each told once to use no others."""
    with _lock:
        if threads not in _pools:
            pool = ThreadPoolExecutor(threads, thread_name_prefix="cypher-batch")
            all_here = Barrier(threads + 1)

            def use_no_others() -> None:
                # A thread's first question fetches the process's number, and would undo what was set before it.
                torch.get_num_threads()
                torch.set_num_threads(1)
                all_here.wait()

            for _ in range(threads):
                pool.submit(use_no_others)
            all_here.wait()
            # The number is each thread's own, but also what threads begun later start with.
            torch.set_num_threads(threads)
            _pools[threads] = pool
        return _pools[threads]
