"""Quality against latency: which system to take."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from cypher.errors import ConfigError, DataError
from cypher.report.figure_style import checked_target, figure_style, save_figure
from cypher.report.label_places import Box, place_labels
from cypher.report.palette import COLOURS, FAINT_INK, INK

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@dataclass(frozen=True, kw_only=True)
class TradePoint:
    """One system in a figure of quality against latency.

    Args:
        name: Written beside its point.
        latency: Lower is better; above 0.
        quality: Higher is better.
    """

    name: str
    latency: float
    quality: float


def pareto_front(points: Iterable[TradePoint]) -> list[TradePoint]:
    """The points that no other one beats: none is at least as fast and at least as good, and better in one.

    Args:
        points: In any order; of equal points all are kept.

    Returns:
        The front from the fastest to the best.

    Example:
        >>> slow = TradePoint(name="slow", latency=9.0, quality=0.5)
        >>> fast = TradePoint(name="fast", latency=1.0, quality=0.6)
        >>> [point.name for point in pareto_front([slow, fast])]
        ['fast']
    """
    front: list[TradePoint] = []
    for point in sorted(points, key=lambda point: (point.latency, -point.quality)):
        last = front[-1] if front else None
        equal = last is not None and (last.latency, last.quality) == (point.latency, point.quality)
        if last is None or equal or point.quality > last.quality:
            front.append(point)
    return front


def tradeoff(
    points: Iterable[TradePoint],
    path: str | os.PathLike[str],
    *,
    latency_label: str,
    quality_label: str,
    recommended: str | None = None,
    title: str = "",
) -> Path:
    """Quality against latency: every system a named point, those that nothing beats joined by a line.

    The latency axis is logarithmic once the slowest takes 20 times as long as the fastest.

    Args:
        points: At least one.
        path: Where to write; ``.png`` or ``.svg``.
        latency_label: What is measured, with its unit, such as ``"latency (ms a question)"``.
        quality_label: Such as ``"exact match (%)"``.
        recommended: Name of the point to mark.
        title: Above the figure.

    Returns:
        The path.

    Raises:
        ConfigError: Another suffix, or ``recommended`` names no point.
        DataError: No points, a latency or quality that cannot be drawn, or the file cannot be written.
    """
    target = checked_target(path)
    points = list(points)
    if not points:
        raise DataError(f"no points for {target.name}", needed="at least one measured system")
    for point in points:
        if not (point.latency > 0 and math.isfinite(point.latency) and math.isfinite(point.quality)):
            raise DataError(
                f"{point.name} has latency {point.latency} and quality {point.quality}",
                needed="a latency above 0 and finite numbers",
            )
    names = [point.name for point in points]
    if recommended is not None and recommended not in names:
        raise ConfigError(f"recommended = {recommended}", needed=f"one of {', '.join(names)}")
    from matplotlib.figure import Figure

    with figure_style():
        figure = Figure(figsize=(7, 4.6), layout="constrained")
        axes = figure.subplots()
        _draw_tradeoff(axes, points, recommended)
        axes.set_xlabel(f"{latency_label}, lower is better")
        axes.set_ylabel(f"{quality_label}, higher is better")
        if title:
            axes.set_title(title)
        _name_points(figure, axes, points, recommended)
        return save_figure(figure, target)


def _draw_tradeoff(axes: Axes, points: Sequence[TradePoint], recommended: str | None) -> None:
    latencies = [point.latency for point in points]
    if max(latencies) >= 20 * min(latencies):
        axes.set_xscale("log")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.6g}")
    front = pareto_front(points)
    axes.plot(
        [point.latency for point in front],
        [point.quality for point in front],
        color=COLOURS[0],
        linewidth=1.4,
        alpha=0.55,
        drawstyle="steps-post",
        zorder=2,
    )
    for point in points:
        chosen = point.name == recommended
        colour = COLOURS[1] if chosen else COLOURS[0] if point in front else FAINT_INK
        axes.plot(
            point.latency,
            point.quality,
            marker="o",
            markersize=9 if chosen else 6.5,
            color=colour,
            markeredgecolor="white",
            zorder=4 if chosen else 3,
        )
    axes.margins(0.12)


def _name_points(figure: Figure, axes: Axes, points: Sequence[TradePoint], recommended: str | None) -> None:
    figure.draw_without_rendering()
    scale = figure.dpi / 72
    texts = []
    for point in points:
        chosen = point.name == recommended
        texts.append(
            axes.annotate(
                f"{point.name} (recommended)" if chosen else point.name,
                xy=(point.latency, point.quality),
                xytext=(0, 0),
                textcoords="offset points",
                ha="left",
                va="bottom",
                fontsize=9,
                fontweight="bold" if chosen else "normal",
                color=COLOURS[1] if chosen else INK,
                zorder=5,
            )
        )
    places = [tuple(map(float, axes.transData.transform((p.latency, p.quality)))) for p in points]
    extents = [text.get_window_extent() for text in texts]
    boxes = place_labels(
        [(x, y) for x, y in places],
        [(extent.width, extent.height) for extent in extents],
        Box(*axes.bbox.extents),
        distance=8 * scale,
        obstacles=_front_boxes(axes, points, scale),
    )
    for text, (x, y), box in zip(texts, places, boxes, strict=True):
        text.set_position(((box.left - x) / scale, (box.bottom - y) / scale))


def _front_boxes(axes: Axes, points: Sequence[TradePoint], scale: float) -> list[Box]:
    """The staircase of the front as thin boxes, which labels should not cross."""
    steps = [tuple(map(float, axes.transData.transform((p.latency, p.quality)))) for p in pareto_front(points)]
    boxes = []
    for (left, low), (right, high) in pairwise(steps):
        boxes += [Box(left, low - scale, right, low + scale), Box(right - scale, low, right + scale, high)]
    return boxes
