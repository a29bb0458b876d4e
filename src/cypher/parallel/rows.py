"""Rows that copies of a model look at, a share each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch.distributed as dist

from cypher.parallel.world import World


def own_rows(rows: Sequence[Any], world: World) -> Sequence[Any]:
    """The rows of this process's copy.

    Args:
        rows: All of them.
        world: Copies lie along its ``replicate`` axis, and each holds all of the model.
    """
    return rows[world.copy :: world.plan.dp]


def join_rows(own: list[Any], n_rows: int, world: World) -> list[Any]:
    """What every copy made of its rows, in the order of all rows.

    Args:
        own: Of this copy, one a row.
        n_rows: Of all copies.
        world: As in :func:`own_rows`.
    """
    copies = world.plan.dp
    if copies == 1:
        return own
    parts: list[list[Any]] = [[] for _ in range(copies)]
    dist.all_gather_object(parts, own, group=world.group("replicate"))
    joined: list[Any] = [None] * n_rows
    for place, part in enumerate(parts):
        joined[place::copies] = part
    return joined
