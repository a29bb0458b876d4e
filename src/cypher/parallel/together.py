"""Work that all processes do, or none: what fails in one of them is raised in every one, so that none waits for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from cypher.errors import CypherError, first_line
from cypher.parallel.world import World

Found = TypeVar("Found")


def together(world: World, work: Callable[[], Found]) -> list[Found]:
    """Do something in every process and tell all of them what each found.

    Args:
        world: All processes; each must call this.
        work: Of this process; does not talk to the others. What it returns is sent to them, so it should be small.

    Returns:
        What each found, by rank.

    Raises:
        CypherError: What the first process to fail said. A process whose own failure is no ``CypherError`` raises that
            instead.

    Example:
        >>> from cypher.config import ParallelPlan
        >>> together(World(plan=ParallelPlan()), lambda: 3)
        [3]
    """
    if world.mesh is None:
        return [work()]
    found: Found | None = None
    failure: Exception | None = None
    try:
        found = work()
    except Exception as error:  # noqa: BLE001 - whatever it is, the others are waiting to hear of it
        failure = error
    said = failure
    if failure is not None and not isinstance(failure, CypherError):
        said = CypherError(f"process {world.rank} failed ({type(failure).__name__}: {first_line(failure)})")
    results = world.gathered((said, found))
    first = next((said for said, _ in results if said is not None), None)
    if first is not None:
        raise first if failure is said or failure is None else failure
    return [value for _, value in results]
