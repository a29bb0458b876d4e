"""A process of a run, as small as can be: started by the tests of launching, and told what to do."""

from __future__ import annotations

import os
import signal
import sys
import time

import torch

from cypher.config import ParallelPlan
from cypher.parallel.failure import record_failure
from cypher.parallel.launch import follow_launcher
from cypher.parallel.world import joined


def work(case: str) -> None:
    follow_launcher()
    rank = int(os.environ["RANK"])
    with joined(ParallelPlan(dp=int(os.environ["WORLD_SIZE"])), seconds=30) as world:
        if case == "meet":
            print(f"hello from {rank}, {torch.get_num_threads()} threads", flush=True)
        elif case == "wait" or (case == "stubborn" and signal.signal(signal.SIGINT, signal.SIG_IGN)):
            print(f"waiting as {os.getpid()}", flush=True)
            time.sleep(60)
        elif rank == 1 and case == "fail":
            raise ValueError("this one")
        elif rank == 1 and case == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        elif rank == 1 and case == "memory":
            torch.empty(10**15)
        elif rank == 1 and case == "fail once" and os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
            raise ValueError("the first time")
        world.total([1.0], over=("replicate",))


if __name__ == "__main__":
    try:
        work(sys.argv[1])
    except Exception as error:  # noqa: BLE001 - as a command does: a note, and an exit code
        record_failure(error)
        sys.exit(1)
    except KeyboardInterrupt as error:
        record_failure(error, line="interrupted in order")
        sys.exit(130)
