"""The colours of every figure and page: eight that colour-blind readers can tell apart.

The order of Okabe and Ito (2008), https://jfly.uni-koeln.de/color/, without black and with its yellow last,
for yellow is too pale to draw thin lines with.
"""

from __future__ import annotations

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#6A5ACD", "#F0E442")
"""For lines, points and marks, in this order; a ninth thing takes the first colour again."""

INK = "#222222"
FAINT_INK = "#6B6B6B"
GRID = "#E3E3E3"
