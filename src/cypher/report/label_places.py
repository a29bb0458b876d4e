"""Where labels go in a figure so that none covers another: pure arithmetic in pixels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class Box(NamedTuple):
    """A rectangle; y grows upwards."""

    left: float
    bottom: float
    right: float
    top: float

    def overlap(self, other: Box) -> float:
        """Shared area."""
        width = min(self.right, other.right) - max(self.left, other.left)
        height = min(self.top, other.top) - max(self.bottom, other.bottom)
        return max(0.0, width) * max(0.0, height)

    @property
    def area(self) -> float:
        """Width times height."""
        return (self.right - self.left) * (self.top - self.bottom)


def spread(places: Sequence[float], gap: float) -> list[float]:
    """Moves places apart until neighbours have at least ``gap`` between them, each as little as possible.

    Args:
        places: Wanted places, in any order.
        gap: Least distance.

    Returns:
        The new places, in the order given.

    Example:
        >>> spread([10.0, 0.0, 1.0], 4.0)
        [10.0, -1.5, 2.5]
    """
    order = sorted(range(len(places)), key=lambda index: places[index])
    # Clusters of labels that touch: (sum of places as if stacked from zero, count); each is centred.
    clusters: list[tuple[float, int]] = []
    for index in order:
        clusters.append((places[index], 1))
        while len(clusters) > 1 and _last(clusters[-2], gap) + gap > _first(clusters[-1], gap):
            total, count = clusters.pop()
            below_total, below_count = clusters.pop()
            clusters.append((below_total + total, below_count + count))
    moved = [0.0] * len(places)
    ranks = iter(order)
    for cluster in clusters:
        for rank in range(cluster[1]):
            moved[next(ranks)] = _first(cluster, gap) + rank * gap
    return moved


def _first(cluster: tuple[float, int], gap: float) -> float:
    total, count = cluster
    return total / count - gap * (count - 1) / 2


def _last(cluster: tuple[float, int], gap: float) -> float:
    return _first(cluster, gap) + gap * (cluster[1] - 1)


def place_labels(
    points: Sequence[tuple[float, float]],
    sizes: Sequence[tuple[float, float]],
    bounds: Box,
    *,
    distance: float,
    obstacles: Sequence[Box] = (),
) -> list[Box]:
    """A box beside each point, right of it if there is room, clear of points and other labels.

    Greedy: each label takes the first of eight places without overlap, else the one with the least.

    Args:
        points: Centres of the points.
        sizes: Width and height of each label.
        bounds: Labels should stay inside.
        distance: From a point's centre to its label.
        obstacles: Other areas to keep clear, such as a line.

    Returns:
        One box a label, in order.

    Example:
        >>> place_labels([(0.0, 0.0)], [(10.0, 4.0)], Box(-50, -50, 50, 50), distance=3.0)
        [Box(left=3.0, bottom=-2.0, right=13.0, top=2.0)]
    """
    dots = [Box(x - distance, y - distance, x + distance, y + distance) for x, y in points]
    placed: list[Box] = []
    for number, ((x, y), (width, height)) in enumerate(zip(points, sizes, strict=True)):
        others = [dot for index, dot in enumerate(dots) if index != number]
        taken = [*others, *placed, *obstacles]
        candidates = _around(x, y, width, height, distance)
        placed.append(min(candidates, key=lambda box: _cost(box, taken, bounds)))
    return placed


def _around(x: float, y: float, width: float, height: float, distance: float) -> list[Box]:
    near = distance * 0.7
    corners = [
        (x + distance, y - height / 2),
        (x - distance - width, y - height / 2),
        (x + near, y + near),
        (x + near, y - near - height),
        (x - width / 2, y + distance),
        (x - width / 2, y - distance - height),
        (x - near - width, y + near),
        (x - near - width, y - near - height),
    ]
    return [Box(left, bottom, left + width, bottom + height) for left, bottom in corners]


def _cost(box: Box, taken: Sequence[Box], bounds: Box) -> float:
    outside = box.area - box.overlap(bounds)
    return sum(box.overlap(other) for other in taken) + 4 * outside
