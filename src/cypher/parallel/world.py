"""The processes of a run: how they find each other, this one's place among them, and the few sums they share.

Axes of the mesh, outermost first: ``pp`` (stages), ``replicate`` and ``shard`` (together the copies of ``dp``), ``tp``.
Neighbours on the last axis talk most, so ranks that follow each other, which share a machine, lie along it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from cypher.config import ParallelPlan
from cypher.errors import ConfigError
from cypher.parallel.failure import explained, record_failure
from cypher.parallel.meeting import meet

Axis = Literal["pp", "replicate", "shard", "tp"]
AXES: tuple[Axis, ...] = ("pp", "replicate", "shard", "tp")


@dataclass(frozen=True, kw_only=True)
class World:
    """All processes of a run.

    Args:
        plan: How the model is divided over them.
        rank: Of this process, from 0.
        mesh: Places of all processes; ``None`` where there is one.
    """

    plan: ParallelPlan
    rank: int = 0
    mesh: DeviceMesh | None = None

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and speaks for the others."""
        return self.rank == 0

    def place(self, axis: Axis) -> int:
        """Of this process on one axis, from 0."""
        return 0 if self.mesh is None else int(self.mesh.get_local_rank(axis))

    @property
    def copy(self) -> int:
        """Which of the ``dp`` copies this process belongs to."""
        return self.place("replicate") * self.plan.shards + self.place("shard")

    def group(self, axis: Axis) -> dist.ProcessGroup:
        """The processes that differ from this one on one axis alone."""
        assert self.mesh is not None, "one process has no groups"
        return self.mesh.get_group(axis)

    def total(self, values: Sequence[float], *, over: Sequence[Axis]) -> list[float]:
        """Each value summed over the processes along some axes, the same everywhere.

        Args:
            values: In the same order in every process.
            over: Axes; all of them together take one exchange.
        """
        summed = torch.tensor(values, dtype=torch.float64)
        if self.mesh is not None:
            if tuple(over) == AXES:
                dist.all_reduce(summed)
            else:
                for axis in over:
                    if self.mesh[axis].size() > 1:
                        dist.all_reduce(summed, group=self.group(axis))
        totals: list[float] = summed.tolist()
        return totals

    def agreed(self, value: Any) -> Any:
        """What the main process says, everywhere.

        Args:
            value: Looked at in the main process alone; anything that a message can carry.
        """
        if self.mesh is None:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0)
        return box[0]

    def gathered(self, value: Any) -> list[Any]:
        """What every process says, by rank, everywhere.

        Args:
            value: Of this process; anything that a message can carry.
        """
        if self.mesh is None:
            return [value]
        values: list[Any] = [None] * dist.get_world_size()
        dist.all_gather_object(values, value)
        return values

    def wait(self) -> None:
        """Until all processes are here."""
        if self.mesh is not None:
            dist.barrier()


def world_size() -> int:
    """Processes that were started together with this one; 1 where it was started alone."""
    return int(os.environ.get("WORLD_SIZE", "1"))


@contextmanager
def joined(plan: ParallelPlan, *, seconds: float = 600.0) -> Iterator[World]:
    """Meet the other processes, and part from them in order.

    Args:
        plan: Its degrees multiply to the number of processes.
        seconds: Longest wait for the others, at the beginning and in every exchange.

    Raises:
        ConfigError: The plan is for another number of processes, this one was not told its place, or they run
            different versions.
        PeerError: Another process ended, or did not answer, while this one was at work.
        CypherError: The others do not come, the port is in use, or this process has no memory left.
    """
    size = world_size()
    if size != plan.world:
        raise ConfigError(
            f"a plan for {plan.world} processes ({plan}) in a run of {size}",
            change=f"start {plan.world}, as cypher train RECIPE --parallel {plan} does by itself",
        )
    if size == 1:
        yield World(plan=plan)
        return
    absent = [name for name in ("RANK", "MASTER_ADDR", "MASTER_PORT") if not os.environ.get(name)]
    if absent:
        raise ConfigError(
            f"WORLD_SIZE = {size} without {', '.join(absent)}", change="start the processes with torchrun, or unset it"
        )
    rank = int(os.environ["RANK"])
    try:
        store = meet(rank=rank, size=size, seconds=seconds)
        dist.init_process_group("gloo", store=store, rank=rank, world_size=size, timeout=timedelta(seconds=seconds))
        sizes = (plan.pp, plan.dp // plan.shards, plan.shards, plan.tp)
        mesh = init_device_mesh("cpu", sizes, mesh_dim_names=AXES)
        yield World(plan=plan, rank=rank, mesh=mesh)
        dist.barrier()  # whoever leaves first would look like a failure to the others
    except Exception as error:
        told = explained(error, rank=rank, size=size)
        # Before the connections are closed, by which the others will fail, too.
        record_failure(told)
        if told is error:
            raise
        raise told from error
    except BaseException as error:
        record_failure(error)
        raise
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()
