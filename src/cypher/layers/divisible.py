"""What a brick says about being divided over processes; the dividing itself is not its business."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

Division = Literal["column", "row", "vocabulary", "replicate"]
"""What each process holds of a part: a share of a linear layer's outputs (``column``) or inputs (``row``), a share of
what there is one of for every token of the vocabulary, or all of it."""


class Divisible:
    """A brick whose parts can be divided over processes (Shoeybi et al. 2019, arXiv 1909.08053, section 3).

    One with ``column`` parts is given the same in every process and makes a summand of its output in each: its ``row``
    parts read what the ``column`` parts of the same process have made, and nothing else mixes features.

    Attributes:
        divisions: How each part is divided, by its name; what is attached to a part follows it.
    """

    divisions: ClassVar[Mapping[str, Division]]

    def evenly(self) -> Mapping[str, int]:
        """Numbers that the number of processes must divide, by the name a configuration has for them."""
        return {}
