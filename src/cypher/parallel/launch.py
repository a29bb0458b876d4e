"""Start the processes of a plan on this machine, by torchrun's own agent, and tell how they ended.

The main process has the terminal to itself; what others print is merged into it line by line, with their rank before
it. Each process hears from this one through its standard input: when that ends, so does the process, so that none is
left behind whatever happens here.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import tempfile
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException, Std
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from cypher.errors import CypherError
from cypher.parallel.failure import Failure, first_failure, read_failures

LAUNCHED = "CYPHER_LAUNCHED"
"""Set in the environment of processes that :func:`launch` started."""

# A process that was told to stop finishes its step and keeps a checkpoint; a second Ctrl-C ends the wait.
SECONDS_TO_END = 3600
# After the second one.
SECONDS_TO_DIE = 10
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)


def launch(
    command: Sequence[str],
    *,
    processes: int,
    threads: int | None = None,
    max_restarts: int = 0,
    tell: Callable[[str], None] = lambda line: None,
) -> None:
    """Run one command in several processes that find each other as under ``torchrun``, until all are done.

    Ctrl-C is handed to all of them, so that each ends in order; a second one ends them at once.

    Args:
        command: A program and its arguments, the same in every process.
        processes: How many.
        threads: Processor cores for all of them together; ``None`` is all that this process may use.
        max_restarts: How often all are started again after one failed.
        tell: Given what made them start again.

    Raises:
        CypherError: One failed: the line and exit code of the first that did.
        KeyboardInterrupt: They were interrupted and had nothing to say about it.
    """
    with tempfile.TemporaryDirectory(prefix="cypher-") as folder, _environment(processes, threads), _lifeline() as cut:
        others = dict.fromkeys(range(1, processes), Std.ALL)
        config = LaunchConfig(
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=processes,
            run_id=uuid.uuid4().hex,
            rdzv_backend="c10d",
            rdzv_endpoint="127.0.0.1:0",
            local_addr="127.0.0.1",
            max_restarts=max_restarts,
            logs_specs=DefaultLogsSpecs(log_dir=folder, redirects=others, tee=others),
            log_line_prefix_template="[rank ${rank}] ",
            signals_to_handle=",".join(number.name for number in SIGNALS),
            shutdown_timeout=SECONDS_TO_END,
        )
        exit_codes: Mapping[int, int] = {}
        stopped_by: signal.Signals | None = None
        with _signals_restored():
            try:
                elastic_launch(config, command[0])(*command[1:])
            except ChildFailedError as error:
                exit_codes = {rank: failure.exitcode for rank, failure in error.failures.items()}
            except SignalException as error:
                stopped_by = error.sigval
                cut()
            attempts = sorted(Path(folder).glob("*/attempt_*"), key=lambda path: int(path.name.rpartition("_")[2]))
            for number, attempt in enumerate(attempts[:-1], 1):
                if (failure := first_failure(read_failures(attempt), {})) is not None:
                    tell(f"attempt {number}: {_line(failure)}; all processes were started again")
            if not exit_codes and stopped_by is None:
                return
            failures = read_failures(attempts[-1]) if attempts else []
            if stopped_by is not None:  # all of them end by the same; the first process knows how far they were
                failures.sort(key=lambda failure: failure.rank)
            failure = first_failure(failures, exit_codes)
    if stopped_by == signal.SIGINT and failure is None:
        raise KeyboardInterrupt
    if failure is None:
        how = "" if stopped_by is None else f" by {stopped_by.name}"
        raise CypherError(f"the {processes} processes were ended{how}", change="run the same command again to go on")
    told = CypherError(failure.line if stopped_by == signal.SIGINT else _line(failure))
    told.exit_code = failure.exit_code
    raise told


def is_launched() -> bool:
    """Whether :func:`launch` started this process, and tells for it how it failed."""
    return os.environ.get(LAUNCHED) == "1"


def follow_launcher() -> None:
    """End this process when the one that launched it is gone."""

    def watch() -> None:
        while os.read(0, 1):
            pass
        os._exit(1)

    threading.Thread(target=watch, name="follow-launcher", daemon=True).start()


def _line(failure: Failure) -> str:
    return f"rank {failure.rank}: {failure.line}"


@contextmanager
def _environment(processes: int, threads: int | None) -> Iterator[None]:
    """What the processes inherit: their share of the cores, the loopback alone, and that they are launched."""
    cores = threads or (len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
    loopback = next((name for _, name in socket.if_nameindex() if name in ("lo", "lo0")), None)
    values = {LAUNCHED: "1"}
    # Warnings of the library below, one a process, about what is meant to be so.
    if "TORCH_CPP_LOG_LEVEL" not in os.environ:
        values["TORCH_CPP_LOG_LEVEL"] = "ERROR"
    if threads is not None or "OMP_NUM_THREADS" not in os.environ:
        values["OMP_NUM_THREADS"] = str(max(1, cores // processes))
    if loopback is not None and "GLOO_SOCKET_IFNAME" not in os.environ:
        values["GLOO_SOCKET_IFNAME"] = loopback
    before = dict(os.environ)
    os.environ.update(values)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


@contextmanager
def _lifeline() -> Iterator[Callable[[], None]]:
    """Standard input of every process that is started: cutting it ends them, and waits until the last has let go."""
    own_input = os.dup(0)
    here, there = socket.socketpair()
    os.dup2(there.fileno(), 0)
    there.close()

    def cut() -> None:
        os.dup2(own_input, 0)
        here.shutdown(socket.SHUT_WR)
        here.settimeout(SECONDS_TO_DIE)
        with suppress(TimeoutError):
            here.recv(1)

    with here:
        try:
            yield cut
        finally:
            os.dup2(own_input, 0)
            os.close(own_input)


@contextmanager
def _signals_restored() -> Iterator[None]:
    """The agent takes signals over and reports on itself; both are undone behind it."""
    handlers = {number: signal.getsignal(number) for number in SIGNALS}
    # Every module of the agent sets a level of its own, so only this silences all of them: we tell what happened.
    disabled = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(disabled)
        for number, handler in handlers.items():
            signal.signal(number, handler)
