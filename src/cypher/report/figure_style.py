"""The one look of all figures, and how they are written."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cypher.documents.source import shown
from cypher.errors import ConfigError
from cypher.files import replacing
from cypher.report.palette import FAINT_INK, GRID, INK

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_STYLE: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 10,
    "axes.labelcolor": INK,
    "axes.edgecolor": FAINT_INK,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "xtick.color": FAINT_INK,
    "ytick.color": FAINT_INK,
    "text.color": INK,
    "text.parse_math": False,  # names hold dollar signs and underscores, not formulas
    "lines.linewidth": 1.8,
    "lines.solid_capstyle": "round",
    "savefig.facecolor": "white",
    "svg.hashsalt": "cypher",  # the same rows give the same bytes
}
_DOTS_PER_INCH = 144
_SUFFIXES = (".png", ".svg")


def figure_style() -> AbstractContextManager[None]:
    """Inside it, matplotlib draws in the project's style; the caller's own settings come back after it.

    Figures are made from the ``Figure`` class and saved by their suffix, which needs no display and leaves
    ``pyplot`` and its global state alone.
    """
    from matplotlib import rc_context

    return rc_context(_STYLE)


def checked_target(path: str | os.PathLike[str]) -> Path:
    """The path of a figure, refused when its suffix is no format that is drawn.

    Raises:
        ConfigError: Another suffix than .png or .svg.
    """
    target = Path(path)
    if target.suffix.lower() not in _SUFFIXES:
        raise ConfigError(f"{shown(path)} is no name for a figure", needed=f"one of {' '.join(_SUFFIXES)}")
    return target


def save_figure(figure: Figure, target: Path) -> Path:
    """Writes the figure in one step, in the format of the suffix, and returns the path.

    Raises:
        DataError: The file cannot be written.
    """
    kind = target.suffix.lower().removeprefix(".")
    with replacing(target) as partial:
        # Without its date an SVG of the same rows is the same file.
        figure.savefig(partial, format=kind, dpi=_DOTS_PER_INCH, metadata={"Date": None} if kind == "svg" else None)
    return target
