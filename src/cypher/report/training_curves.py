"""Training curves: losses and metrics over steps."""

from __future__ import annotations

import math
import os
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, TypeGuard

from cypher.errors import DataError
from cypher.report.figure_style import checked_target, figure_style, save_figure
from cypher.report.label_places import spread
from cypher.report.palette import COLOURS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MANY_POINTS = 60
_End: TypeAlias = tuple[float, float, str, str]  # a line's last x and y, its label, its colour


def curves(
    rows: Iterable[Mapping[str, object]],
    path: str | os.PathLike[str],
    *,
    losses: Sequence[str] = ("loss",),
    metrics: Sequence[str] = (),
    x: str = "step",
    title: str = "",
) -> Path:
    """Training curves: losses above, metrics below, over the same axis.

    A row may lack any key, so that rows of training and of evaluation can be mixed; values that are not
    finite leave a gap. A curve of more than 60 points is drawn faintly, with its running mean on top. The
    label at a line's end gives its last value (loss) or its best one (metric).

    Args:
        rows: One mapping a record, such as the lines of metrics.jsonl.
        path: Where to write; ``.png`` or ``.svg``.
        losses: Keys of the upper panel (lower is better).
        metrics: Keys of the lower panel (higher is better); without any there is one panel.
        x: Key of the horizontal axis.
        title: Above the figure.

    Returns:
        The path.

    Raises:
        ConfigError: Another suffix.
        DataError: No row has ``x`` with one of the keys, or the file cannot be written.
    """
    target = checked_target(path)
    rows = list(rows)
    panels = [(name, keys) for name, keys in (("Loss", losses), ("Metric", metrics)) if keys]
    series = {key: _series(rows, x, key) for _, keys in panels for key in keys}
    drawn = [(name, [key for key in keys if series[key][0]]) for name, keys in panels]
    drawn = [(name, keys) for name, keys in drawn if keys]
    if not drawn:
        raise DataError(f"no curve for {target.name}: {len(rows)} rows", needed=f"{x} with one of {' '.join(series)}")
    from matplotlib.figure import Figure

    with figure_style():
        figure = Figure(figsize=(7, 2.9 * len(drawn) + 0.4), layout="constrained")
        axes = figure.subplots(len(drawn), 1, sharex=True, squeeze=False)[:, 0]
        n_before = 0
        ends: list[list[_End]] = []
        for panel, (name, keys) in zip(axes, drawn, strict=True):
            ends.append(_draw_curves(panel, {key: series[key] for key in keys}, name == "Loss", n_before))
            panel.set_ylabel(keys[0] if len(keys) == 1 else name.lower())
            n_before += len(keys)
        axes[-1].set_xlabel(x)
        if title:
            axes[0].set_title(title)
        figure.draw_without_rendering()  # places are known only once the layout is
        for panel, panel_ends in zip(axes, ends, strict=True):
            _label_ends(figure, panel, panel_ends)
        return save_figure(figure, target)


def _series(rows: Iterable[Mapping[str, object]], x: str, key: str) -> tuple[list[float], list[float]]:
    """The points of one key in order of ``x``; a value that is not finite is kept as NaN, a gap."""
    points = []
    for row in rows:
        at, value = row.get(x), row.get(key)
        if _is_number(at) and _is_number(value) and math.isfinite(at):
            points.append((float(at), float(value) if math.isfinite(value) else math.nan))
    points.sort(key=lambda point: point[0])
    if all(math.isnan(value) for _, value in points):
        return [], []
    return [at for at, _ in points], [value for _, value in points]


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _draw_curves(
    axes: Axes, series: Mapping[str, tuple[list[float], list[float]]], is_loss: bool, n_before: int
) -> list[_End]:
    ends: list[_End] = []
    for number, (key, (at, values)) in enumerate(series.items(), start=n_before):
        colour = COLOURS[number % len(COLOURS)]
        smooth = values
        if len(values) > _MANY_POINTS:
            axes.plot(at, values, color=colour, alpha=0.25, linewidth=0.9)
            smooth = _running_mean(values, len(values) // 30)
        # Isolated points (a few evaluations, gaps on both sides) are invisible as a line alone.
        axes.plot(at, smooth, color=colour, marker="o" if len(values) <= 20 else None, markersize=4)
        finite = [value for value in values if not math.isnan(value)]
        last = next(index for index in reversed(range(len(smooth))) if not math.isnan(smooth[index]))
        summary = _short(smooth[last]) if is_loss else f"best {_short(max(finite))}"
        ends.append((at[last], smooth[last], f"{key}  {summary}", colour))
    axes.margins(x=0.01, y=0.08)
    return ends


def _label_ends(figure: Figure, axes: Axes, ends: Sequence[_End]) -> None:
    """Names at the right border, level with the ends of their lines as far as they do not collide."""
    pixels = [float(axes.transData.transform((x, y))[1]) for x, y, _, _ in ends]
    per_point = figure.dpi / 72
    for (_, y, text, colour), wanted, place in zip(ends, pixels, spread(pixels, 14 * per_point), strict=True):
        axes.annotate(
            text,
            xy=(1.0, y),
            xycoords=("axes fraction", "data"),
            xytext=(8, (place - wanted) / per_point),
            textcoords="offset points",
            color=colour,
            fontsize=9,
            va="center",
            annotation_clip=False,
        )


def _running_mean(values: Sequence[float], width: int) -> list[float]:
    """Mean over the last ``width`` finite values; never looks ahead, so the curve's end is what was known."""
    recent: deque[float] = deque(maxlen=max(1, width))
    means = []
    for value in values:
        if math.isnan(value):
            means.append(math.nan)
        else:
            recent.append(value)
            means.append(math.fsum(recent) / len(recent))
    return means


def _short(value: float) -> str:
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"
