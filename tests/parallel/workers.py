"""Processes that stay alive between cases: starting torch takes longer than most cases do.

Each case meets in a process group of its own and parts from it, so that one case cannot leave another what it did.
"""

from __future__ import annotations

import os
import socket
import traceback
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection, wait
from typing import Any

import torch
import torch.multiprocessing as multiprocessing


class CaseError(AssertionError):
    """A case ended in an error; the text is the first process's to say so."""


class Workers:
    """Up to ``most`` processes with one thread each, started when they are first needed.

    Args:
        most: Processes that one case may use.
        seconds: Longest time a case may take.
    """

    def __init__(self, most: int = 8, *, seconds: float = 120.0) -> None:
        self.most, self.seconds = most, seconds
        self._running: list[tuple[Any, Connection]] = []

    def run(self, world: int, case: Callable[..., Any], *arguments: Any) -> list[Any]:
        """Call ``case(*arguments)`` in ``world`` processes that find each other as under torchrun.

        Args:
            world: How many.
            case: Of a module that the processes can import.
            arguments: The same for all.

        Returns:
            What each returned, by rank.

        Raises:
            CaseError: One of them raised, died or took too long; all are ended then.
        """
        assert world <= self.most, f"{world} processes of {self.most}"
        while len(self._running) < world:
            self._start()
        port = _free_port()
        pipes = [pipe for _, pipe in self._running[:world]]
        for rank, pipe in enumerate(pipes):
            pipe.send((rank, world, port, case, arguments))
        results: dict[int, Any] = {}
        failure = ""
        while len(results) < world and not failure:
            ready = wait([pipe for rank, pipe in enumerate(pipes) if rank not in results], timeout=self.seconds)
            if not ready:
                failure = f"no answer within {self.seconds} s from {sorted(set(range(world)) - results.keys())}"
            for pipe in ready:
                rank = pipes.index(pipe)  # type: ignore[arg-type]
                try:
                    done, value = pipe.recv()  # type: ignore[union-attr]
                except EOFError:
                    done, value = False, "died"
                if done:
                    results[rank] = value
                else:
                    failure = failure or f"process {rank} of {world}: {value}"
        if failure:
            self.close()
            raise CaseError(failure)
        return [results[rank] for rank in range(world)]

    def close(self) -> None:
        """End all processes."""
        for process, pipe in self._running:
            pipe.close()
            process.kill()
            process.join()
        self._running = []

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        here, there = context.Pipe()
        # Read by the libraries when the process loads them.
        before = os.environ.get("OMP_NUM_THREADS")
        os.environ["OMP_NUM_THREADS"] = "1"
        try:
            process = context.Process(target=_serve, args=(there,), daemon=True)
            process.start()
        finally:
            if before is None:
                del os.environ["OMP_NUM_THREADS"]
            else:
                os.environ["OMP_NUM_THREADS"] = before
        there.close()
        self._running.append((process, here))


def _serve(pipe: Connection) -> None:
    torch.set_num_threads(1)
    while True:
        try:
            rank, world, port, case, arguments = pipe.recv()
        except EOFError:
            return
        os.environ.update(
            RANK=str(rank),
            WORLD_SIZE=str(world),
            LOCAL_RANK=str(rank),
            LOCAL_WORLD_SIZE=str(world),
            MASTER_ADDR="127.0.0.1",
            MASTER_PORT=str(port),
            GLOO_SOCKET_IFNAME="lo",
        )
        try:
            pipe.send((True, case(*arguments)))
        except BaseException:  # noqa: BLE001 - whatever it is, the test is to show it
            pipe.send((False, traceback.format_exc()))


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def ranks(results: Sequence[Any]) -> Any:
    """What all processes returned, which is the same."""
    first = results[0]
    assert all(result == first for result in results), results
    return first
