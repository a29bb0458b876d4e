"""Memory of parallel plans: a bar a plan, a colour a kind, and the line that no bar may pass."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cypher.errors import DataError
from cypher.report.figure_style import checked_target, figure_style, save_figure
from cypher.report.palette import COLOURS, FAINT_INK, INK

_KINDS = ("parameters", "gradients", "optimiser", "frozen", "gathered", "activations")


@dataclass(frozen=True, kw_only=True)
class PlanBar:
    """One plan.

    Args:
        name: Beside its bar.
        kinds: Bytes by kind.
        note: At the end of its bar.
    """

    name: str
    kinds: Mapping[str, int]
    note: str = ""


def plan_bars(bars: Sequence[PlanBar], path: str | os.PathLike[str], *, memory: float, title: str = "") -> Path:
    """Draw what the fullest process of each plan needs.

    Args:
        bars: From above to below.
        path: Where to write; ``.png`` or ``.svg``.
        memory: Bytes that a process has.
        title: Above the figure.

    Returns:
        The path.

    Raises:
        ConfigError: Another suffix.
        DataError: No plans, or the file cannot be written.
    """
    target = checked_target(path)
    if not bars:
        raise DataError(f"no plans for {target.name}", needed="at least one")
    from matplotlib.figure import Figure

    unit, name = (1e9, "GB") if memory >= 1e9 else (1e6, "MB")
    with figure_style():
        figure = Figure(figsize=(8, 1.6 + 0.46 * len(bars)), layout="constrained")
        axes = figure.subplots()
        places = range(len(bars))
        ends = [0.0] * len(bars)
        for kind, colour in zip(_KINDS, COLOURS, strict=False):
            sizes = [bar.kinds.get(kind, 0) / unit for bar in bars]
            if any(sizes):
                axes.barh(places, sizes, left=ends, height=0.44, color=colour, label=kind)
                ends = [end + size for end, size in zip(ends, sizes, strict=True)]
        axes.axvline(memory / unit, color=INK, linewidth=1.2, linestyle=(0, (4, 3)))
        for place, bar in enumerate(bars):
            # Above its bar: names of plans are too long to stand beside.
            label = axes.annotate(
                bar.name, xy=(0, place - 0.24), xytext=(2, 1), textcoords="offset points", fontsize=8.5, va="bottom"
            )
            axes.annotate(
                bar.note, xycoords=label, xy=(1, 0), xytext=(8, 0), textcoords="offset points", fontsize=8.5,
                va="bottom", color=FAINT_INK,
            )  # fmt: skip
        axes.set_yticks([])
        axes.set_ylim(len(bars) - 0.6, -0.75)
        axes.grid(visible=False, axis="y")
        axes.set_xlim(0, max(memory / unit, *ends) * 1.04)
        axes.set_xlabel(f"{name} in the fullest process; the line is what it has, {memory / unit:,.4g} {name}")
        figure.legend(
            loc="outside lower center",
            ncols=len(_KINDS),
            frameon=False,
            fontsize=8.5,
            handlelength=1,
            columnspacing=1.4,
        )
        if title:
            axes.set_title(title)
        return save_figure(figure, target)
