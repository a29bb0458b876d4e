"""Two programs timed in turn: A B A B …, each in a process of its own, so that a machine's moods hit both alike.

A benchmark starts itself twice with ``--worker ours`` and ``--worker peer``. A worker loads what it needs, says
``ready``, and then, for every line it is sent, does the work once and answers with one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

PEERS = Path(__file__).parents[1] / ".venv-peers" / "bin" / "python"
FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8")


class Worker:
    """One side of a comparison.

    Args:
        command: Program and arguments.
        threads: It may use.
    """

    def __init__(self, command: Sequence[str], *, threads: int) -> None:
        self.command = list(command)
        self.threads = threads
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "TOKENIZERS_PARALLELISM": "true"}
        self.process = subprocess.Popen(
            self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        self.versions = self._line()

    def run(self) -> dict[str, Any]:
        """Do the work once; the answer has ``seconds`` and whatever else the worker measured."""
        assert self.process.stdin is not None
        self.process.stdin.write("go\n")
        self.process.stdin.flush()
        return self._line()

    def close(self) -> None:
        """End the worker."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(timeout=60)

    def _line(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith("{"):  # libraries may print lines of their own
                answer: dict[str, Any] = json.loads(line)
                return answer
        sys.exit(f"{' '.join(self.command)} ended early")


def serve(work: Callable[[], dict[str, Any]], versions: dict[str, str]) -> None:
    """The worker's side: say ready, then work once per line."""
    print(json.dumps(versions), flush=True)
    for _ in sys.stdin:
        print(json.dumps(work()), flush=True)


def compare(ours: Worker, peer: Worker, *, pairs: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """One uncounted run of each, then ``pairs`` of them in turn."""
    ours.run(), peer.run()
    answers: tuple[list[dict[str, Any]], list[dict[str, Any]]] = ([], [])
    for number in range(pairs):
        answers[0].append(ours.run())
        answers[1].append(peer.run())
        print(f"pair {number + 1} of {pairs}", file=sys.stderr)
    return answers


def report(name: str, ours: Worker, peer: Worker, runs: tuple[list[Any], list[Any]], **more: object) -> dict[str, Any]:
    """What both needed, as one JSON object; ``ratio`` is how many times as fast ours is, by medians."""
    seconds = [median(run["seconds"] for run in side) for side in runs]
    return {
        "benchmark": name,
        "ratio": round(seconds[1] / seconds[0], 3),
        "ours_s": round(seconds[0], 3),
        "peer_s": round(seconds[1], 3),
        "pairs": [[round(a["seconds"], 3), round(b["seconds"], 3)] for a, b in zip(*runs, strict=True)],
        **more,
        "ours": {"command": _shown(ours.command), **ours.versions},
        "peer": {"command": _shown(peer.command), **peer.versions},
        "threads": [ours.threads, peer.threads],
        "machine": {"cpu": platform.processor() or platform.machine(), "flags": cpu_flags()},
    }


def cpu_flags() -> list[str]:
    """Those instruction sets that decide how fast matrix products are."""
    try:
        known = set(re.findall(r"\w+", Path("/proc/cpuinfo").read_text(encoding="utf-8")))
    except OSError:
        return []
    return [flag for flag in FLAGS if flag in known]


def arguments(description: str) -> argparse.ArgumentParser:
    """What all benchmarks take."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--pairs", type=int, default=5, help="counted runs of each side (default 5)")
    parser.add_argument("--threads", type=int, default=2, help="of each side (default 2)")
    parser.add_argument("--peers-python", type=Path, default=PEERS, help="interpreter of the peers' environment")
    parser.add_argument("--worker", choices=("ours", "peer"), help=argparse.SUPPRESS)
    return parser


def _shown(command: Sequence[str]) -> str:
    """The command without the machine's own paths."""
    return " ".join(Path(part).name if os.sep in part else part for part in command)
