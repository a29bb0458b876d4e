"""What a process of a run leaves behind when it fails, so that the first failure is told and not what followed from it.

The file is the one that torchrun's agent names for each process (``TORCHELASTIC_ERROR_FILE``), in the agent's own
layout, so that plain torchrun finds the same line in it.
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from cypher.errors import CypherError, first_line
from cypher.files import write_text

ERROR_FILE = "TORCHELASTIC_ERROR_FILE"
INTERRUPTED = 130

# What gloo and the store say when the process at the other end is gone, or does not answer.
_LOST = (
    "closed by peer", "reset by peer", "broken pipe", "connection refused", "connection was likely closed",
    "timed out waiting", "timeout caused pair closure", "read timeout", "failed to recv", "socket timeout",
)  # fmt: skip
_OUT_OF_MEMORY = ("not enough memory", "out of memory", "can't allocate memory", "cannot allocate memory")


class PeerError(CypherError):
    """Another process of the run is gone, or does not answer: what it says of itself is the cause."""


@dataclass(frozen=True, kw_only=True)
class Failure:
    """How one process ended.

    Args:
        rank: Of the process.
        line: What it would have told by itself.
        exit_code: With which it would have ended by itself.
        seconds: Since the epoch, when it failed.
        is_victim: Whether it only lost another process.
    """

    rank: int
    line: str
    exit_code: int
    seconds: float
    is_victim: bool = False


def explained(error: Exception, *, rank: int, size: int) -> Exception:
    """The error that tells a person what happened in a process, or the same one.

    Args:
        error: Of torch or Python.
        rank: Of this process.
        size: Processes in all.
    """
    text = str(error).lower()
    if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and _any_of(_OUT_OF_MEMORY, text)):
        return CypherError(
            f"out of memory on rank {rank} of {size} ({first_line(error)})",
            change="divide more (zero=3, tp, pp) or set activation_checkpointing: see cypher plan",
        )
    if isinstance(error, (RuntimeError, OSError)) and _any_of(_LOST, text):
        return PeerError(
            f"rank {rank} of {size} lost another process ({first_line(error)})", change="see what that one says"
        )
    return error


def record_failure(error: BaseException, *, line: str | None = None) -> None:
    """Leave a note of how this process failed, where whoever started it looks for one; nothing where nobody does.

    The time is that of the first note: a process that closes its connections makes others fail before it is done.

    Args:
        error: What it failed with.
        line: What a person is told; ``None`` is what the error says.
    """
    path = os.environ.get(ERROR_FILE)
    if not path:
        return
    before = _read(Path(path))
    exit_code = getattr(error, "exit_code", INTERRUPTED if isinstance(error, KeyboardInterrupt) else 1)
    failure = Failure(
        rank=int(os.environ.get("RANK", "0")),
        line=line or first_line(error),
        exit_code=exit_code,
        seconds=time.time() if before is None else before.seconds,
        is_victim=isinstance(error, PeerError),
    )
    message = {"message": failure.line, "extraInfo": {"timestamp": str(int(failure.seconds))}}
    write_text(Path(path), json.dumps({"message": message, "failure": asdict(failure)}))


def read_failures(folder: Path) -> list[Failure]:
    """The notes of all processes whose error files are in a folder of the agent's, by time."""
    found = (_read(path) for path in folder.rglob("error.json"))
    return sorted((failure for failure in found if failure is not None), key=lambda failure: failure.seconds)


def first_failure(failures: Sequence[Failure], exit_codes: Mapping[int, int]) -> Failure | None:
    """The one that made the others fail.

    Args:
        failures: Notes, by time.
        exit_codes: Of the processes that failed, by rank; below 0 is a signal.
    """
    noted = {failure.rank for failure in failures}
    for rank, code in sorted(exit_codes.items()):
        # The agent itself ends those that are left with SIGTERM.
        if code < 0 and code != -signal.SIGTERM and rank not in noted:
            return Failure(rank=rank, line=_killed(-code), exit_code=1, seconds=0.0)
    causes = [failure for failure in failures if not failure.is_victim] or failures
    if causes:
        return causes[0]
    for rank, code in sorted(exit_codes.items()):
        if code > 0:
            return Failure(rank=rank, line=f"ended with exit code {code} and said nothing", exit_code=1, seconds=0.0)
    return None


def _killed(number: int) -> str:
    name = signal.Signals(number).name if number in set(signal.Signals) else f"signal {number}"
    if number == signal.SIGKILL:
        return f"was killed ({name}); where nobody did so, the machine ran out of memory: see cypher plan"
    return f"died ({name})"


def _read(path: Path) -> Failure | None:
    """A note; ``None`` where there is none, or another program's."""
    if not path.is_file():
        return None
    note = json.loads(path.read_text(encoding="utf-8")).get("failure")
    return None if note is None else Failure(**note)


def _any_of(parts: Sequence[str], text: str) -> bool:
    return any(part in text for part in parts)
