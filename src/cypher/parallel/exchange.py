"""What the processes of one tensor-parallel group exchange inside of a forward, and in its backward.

A tensor is *the same* in all of them, a *summand* of theirs, or a *share* of one of its dims. Each exchange is one of
four moves forward, and another one backward (Shoeybi et al. 2019, arXiv 1909.08053, figure 3; with shares of the
tokens, Korthikanti et al. 2022, arXiv 2205.05198, figure 5). Dims that the processes do not divide evenly are padded on
the way.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

Move = Callable[[Tensor], Tensor]


@dataclass(frozen=True, kw_only=True)
class Peers:
    """The processes that hold the parts of the same matrices.

    Args:
        group: Of all of them.
        place: Of this process, from 0.
        count: How many.
    """

    group: dist.ProcessGroup
    place: int
    count: int

    def spread(self, values: Tensor) -> Tensor:
        """The same everywhere, on its way into layers that make summands; their gradients are summed."""
        return _exchange(values, _nothing, self._sum)

    def summed(self, values: Tensor) -> Tensor:
        """Summands to their sum, which is the same everywhere, and so is its gradient."""
        return _exchange(values, self._sum, _nothing)

    def summed_inside(self, values: Tensor) -> Tensor:
        """Summands to their sum, on its way into what makes summands of it again."""
        return _exchange(values, self._sum, self._sum)

    def joined(self, values: Tensor, *, dim: int, length: int) -> Tensor:
        """Shares of a dim of ``length`` to all of it, of which everyone does the same."""
        return _exchange(values, self._gather(dim, length), self._cut(dim, values.shape[dim]))

    def cut(self, values: Tensor, *, dim: int) -> Tensor:
        """The same everywhere to everyone's share of a dim."""
        each = -(-values.shape[dim] // self.count)
        return _exchange(values, self._cut(dim, each), self._gather(dim, values.shape[dim]))

    def spread_shares(self, values: Tensor, *, dim: int, length: int) -> Tensor:
        """Shares of a dim of ``length`` to all of it, on its way into layers that make summands."""
        return _exchange(values, self._gather(dim, length), self._sum_and_cut(dim))

    def summed_shares(self, values: Tensor, *, dim: int) -> Tensor:
        """Summands to everyone's share of a dim of their sum."""
        return _exchange(values, self._sum_and_cut(dim), self._gather(dim, values.shape[dim]))

    def _sum(self, values: Tensor) -> Tensor:
        total = values.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total, group=self.group)
        return total

    def _gather(self, dim: int, length: int) -> Move:
        def gather(values: Tensor) -> Tensor:
            own = _pad(values, dim, -(-length // self.count)).contiguous()
            parts = own.new_empty(self.count, *own.shape)
            dist.all_gather_single(parts.flatten(0, 1), own, group=self.group)
            return torch.cat(parts.unbind(), dim).narrow(dim, 0, length)

        return gather

    def _cut(self, dim: int, padded: int) -> Move:
        def cut(values: Tensor) -> Tensor:
            start, length = share_of(values.shape[dim], self.count, self.place)
            return _pad(values.narrow(dim, start, length), dim, padded).contiguous()

        return cut

    def _sum_and_cut(self, dim: int) -> Move:
        def sum_and_cut(values: Tensor) -> Tensor:
            each = -(-values.shape[dim] // self.count)
            parts = torch.stack(torch.split(_pad(values, dim, each * self.count), each, dim))
            own = torch.empty_like(parts[0])
            dist.reduce_scatter_single(own, parts.flatten(0, 1), group=self.group)
            return own

        return sum_and_cut


def share_of(size: int, parts: int, place: int) -> tuple[int, int]:
    """Where one of some parts of a dim begins and how long it is: all are as long as the first, but for the last ones.

    Args:
        size: Of the dim.
        parts: Number of them.
        place: Of the part, from 0.

    Example:
        >>> [share_of(67, 4, place) for place in range(4)]
        [(0, 17), (17, 17), (34, 17), (51, 16)]
    """
    each = -(-size // parts)
    start = min(each * place, size)
    return start, min(each, size - start)


class _Exchange(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, values: Tensor, there: Move, back: Move) -> Tensor:
        context.back = back
        return there(values)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return context.back(gradient), None, None


def _exchange(values: Tensor, there: Move, back: Move) -> Tensor:
    return cast(Tensor, _Exchange.apply(values, there, back))  # type: ignore[no-untyped-call]


def _nothing(values: Tensor) -> Tensor:
    return values.view_as(values)


def _pad(values: Tensor, dim: int, length: int) -> Tensor:
    missing = length - values.shape[dim]
    return F.pad(values, [0, 0] * (values.dim() - 1 - dim % values.dim()) + [0, missing]) if missing else values
