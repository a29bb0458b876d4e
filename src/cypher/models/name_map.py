"""Names of parameters here and in published checkpoints: a table, read in both directions."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence


class NameMap:
    """A reversible map between two ways of naming the same parameters.

    Args:
        table: Module names here to module names there; ``{}`` stands for a block's number.
        prefixes: What checkpoints of a model with a head may put in front of all names.
        spellings: Endings that some checkpoints write otherwise, to what the table expects.

    Example:
        >>> names = NameMap({"blocks.{}.up": "layer.{}.dense"}, prefixes=("bert.",))
        >>> names.to_ours("bert.layer.3.dense.weight"), names.to_theirs("blocks.3.up.weight")
        ('blocks.3.up.weight', 'layer.3.dense.weight')
    """

    def __init__(
        self,
        table: Mapping[str, str],
        *,
        prefixes: Sequence[str] = (),
        spellings: Mapping[str, str] | None = None,
    ) -> None:
        self._prefixes, self._spellings = tuple(prefixes), dict(spellings or {})
        self._ours = [(self._pattern(theirs), ours) for ours, theirs in table.items()]
        self._theirs = [(self._pattern(ours), theirs) for ours, theirs in table.items()]

    def to_ours(self, name: str) -> str | None:
        """Our name of a checkpoint's parameter; ``None`` when the table does not know it (a head, a buffer)."""
        for prefix in self._prefixes:
            name = name.removeprefix(prefix)
        for other, ours in self._spellings.items():
            if name.endswith(other):
                name = name.removesuffix(other) + ours
        return self._translate(name, self._ours)

    def to_theirs(self, name: str) -> str | None:
        """The checkpoint's name of our parameter; ``None`` when the table does not know it."""
        return self._translate(name, self._theirs)

    @staticmethod
    def _pattern(name: str) -> re.Pattern[str]:
        return re.compile(re.escape(name).replace(r"\{\}", r"(\d+)") + r"\.(weight|bias)")

    @staticmethod
    def _translate(name: str, rules: list[tuple[re.Pattern[str], str]]) -> str | None:
        for pattern, template in rules:
            if match := pattern.fullmatch(name):
                *numbers, parameter = match.groups()
                return f"{template.format(*numbers)}.{parameter}"
        return None
