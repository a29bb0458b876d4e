"""How the processes of a run find each other: who is missing, and who runs other code, is told by name."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import socket
import time
import uuid
from dataclasses import asdict, dataclass
from datetime import timedelta
from functools import cache
from pathlib import Path

import torch
import torch.distributed as dist
from torch.distributed import TCPStore  # type: ignore[attr-defined]
from torch.distributed.distributed_c10d import PrefixStore, Store

from cypher.errors import ConfigError, CypherError, first_line
from cypher.parallel.failure import PeerError

# How long the main process keeps its store open for those who have not read yet how the meeting ended.
SECONDS_TO_READ = 10.0
_LOOK_EVERY = 0.02  # seconds


@dataclass(frozen=True, kw_only=True)
class Presence:
    """One process, as it introduces itself.

    Args:
        host: Its machine.
        cypher: Version.
        code: Digest of the package's source: two installs from source may share a version.
        torch: Version.
        token: Its own alone: a store may remember a process of the same rank that has failed since.
    """

    host: str
    cypher: str
    code: str
    torch: str
    token: str

    @property
    def runs(self) -> str:
        """What it runs."""
        return f"cypher {self.cypher} (code {self.code}) with torch {self.torch}"


def installed_version() -> str:
    """Of this package."""
    return importlib.metadata.version("nlp-cypher")


@cache
def code_digest() -> str:
    """Twelve hexadecimal digits over the source of this package."""
    folder = Path(__file__).parents[1]
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.suffix in (".py", ".toml")):
        digest.update(path.relative_to(folder).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:12]


def meet(*, rank: int, size: int, seconds: float) -> Store:
    """Wait until all processes are here.

    Args:
        rank: Of this process.
        size: How many there are.
        seconds: Longest wait.

    Returns:
        What they exchange messages through until they are connected, with nothing in it.

    Raises:
        ConfigError: They run other versions than this one.
        PeerError: The main process ended while this one waited.
        CypherError: The port is in use, or not all came.
    """
    address = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
    deadline = time.monotonic() + seconds
    # torchrun's agent has a store of its own at this address; elsewhere the main process opens one.
    is_agents = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    me = Presence(
        host=socket.gethostname(),
        cypher=installed_version(),
        code=code_digest(),
        torch=torch.__version__,
        token=uuid.uuid4().hex,
    )
    try:
        store = _store(size, seconds, opens=rank == 0 and not is_agents)
        if rank == 0:
            meeting, here = _receive(store, me, size, deadline, is_own=not is_agents)
        else:
            meeting, here = _attend(store, me, rank, deadline, seconds)
    except (dist.DistError, RuntimeError, ValueError) as error:
        raise _not_met(error, rank=rank, size=size, address=address, seconds=seconds) from error
    _require_all(here, size=size, address=address, seconds=seconds)
    _require_equal(here)
    return PrefixStore(f"cypher/{meeting}", store)


def _store(size: int, seconds: float, *, opens: bool) -> Store:
    return TCPStore(
        os.environ["MASTER_ADDR"],
        int(os.environ["MASTER_PORT"]),
        size,
        is_master=opens,
        timeout=timedelta(seconds=seconds),
        wait_for_workers=False,  # it would not say who is missing
        multi_tenant=True,
    )


def _receive(
    store: Store, me: Presence, size: int, deadline: float, *, is_own: bool
) -> tuple[str, dict[int, Presence]]:
    """The main process: welcome whoever comes, and tell all of them who came."""
    meeting, here, missing = uuid.uuid4().hex, {0: me}, set(range(1, size))
    while missing and time.monotonic() < deadline:
        for other in sorted(missing):
            if store.check([f"here/{other}"]):
                presence = Presence(**json.loads(store.get(f"here/{other}")))
                store.set(f"welcome/{presence.token}", meeting)
                if store.check([f"thanks/{meeting}/{presence.token}"]):  # it is alive
                    here[other] = presence
        missing -= here.keys()
        if missing:
            time.sleep(_LOOK_EVERY)
    told = {other: asdict(presence) for other, presence in here.items()}
    store.set(f"met/{meeting}", json.dumps(told))
    if is_own and len(here) > 1:
        store.wait([f"read/{meeting}/{other}" for other in here if other], timedelta(seconds=SECONDS_TO_READ))
    return meeting, here


def _attend(store: Store, me: Presence, rank: int, deadline: float, seconds: float) -> tuple[str, dict[int, Presence]]:
    """Any other process."""

    def told(key: str, more: float = 0.0) -> str:
        store.wait([key], timedelta(seconds=max(deadline - time.monotonic(), 0.1) + more))
        return bytes(store.get(key)).decode()

    store.set(f"here/{rank}", json.dumps(asdict(me)))
    meeting = told(f"welcome/{me.token}")
    store.set(f"thanks/{meeting}/{me.token}", "")
    # The main process may have come later, and waits as long from then on.
    here = json.loads(told(f"met/{meeting}", more=seconds))
    store.set(f"read/{meeting}/{rank}", "")
    return meeting, {int(other): Presence(**presence) for other, presence in here.items()}


def _not_met(error: Exception, *, rank: int, size: int, address: str, seconds: float) -> CypherError:
    if "EADDRINUSE" in str(error):
        return CypherError(
            f"port {address.rpartition(':')[2]} is in use on the machine of rank 0",
            change="set MASTER_PORT (torchrun --master-port) to a free one",
        )
    if rank == 0:
        return CypherError(
            f"rank 0 of {size} cannot open {address} ({first_line(error)})",
            change="set MASTER_ADDR to an address of its own machine, and MASTER_PORT to a free port",
        )
    if isinstance(error, dist.DistNetworkError) and "timed out" not in str(error):
        return PeerError(f"rank {rank} of {size} lost rank 0 at {address}", change="see what that one says")
    return CypherError(
        f"rank {rank} of {size} found no rank 0 at {address} within {seconds:g} s",
        change="start all processes, and check that this machine reaches that address",
    )


def _require_all(here: dict[int, Presence], *, size: int, address: str, seconds: float) -> None:
    missing = sorted(set(range(size)) - here.keys())
    if missing:
        names = ", ".join(map(str, missing))
        hosts = ", ".join(f"rank {rank} on {presence.host}" for rank, presence in sorted(here.items()))
        raise CypherError(
            f"rank {names} of {size} did not come to {address} within {seconds:g} s (here: {hosts})",
            change="start all processes with this address, and see what the missing ones say",
        )


def _require_equal(here: dict[int, Presence]) -> None:
    first = here[0]
    for rank, other in sorted(here.items()):
        if other.runs != first.runs:
            raise ConfigError(
                f"rank {rank} on {other.host} runs {other.runs}, rank 0 on {first.host} {first.runs}",
                needed="the same code in every process",
                change="install the same versions on all machines",
            )
