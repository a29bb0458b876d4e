"""What all sections of a recipe share: frozen, keyword-only, unknown keys refused with the nearest known one."""

from __future__ import annotations

import difflib
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from cypher.errors import ConfigError


class Section(BaseModel):
    """One table of a recipe.

    Fields document themselves: the same text is the command line's help and the JSON schema's description.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


def parse(section: type[Section], values: dict[str, Any], *, where: str) -> Any:
    """Build ``section`` from plain values, or say in one line which key is wrong and what would be right.

    Args:
        section: The pydantic model to build.
        values: As read from TOML.
        where: What the values came from, for the message.

    Raises:
        ConfigError: For the first wrong key: its path, its value, the nearest known key or the reason.
    """
    try:
        return section.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        parts = [str(part) for part in first["loc"]]
        key = ".".join(parts)
        if first["type"] == "extra_forbidden":
            known = _known_keys(section, parts[:-1])
            near = difflib.get_close_matches(parts[-1], known, n=1)
            hint = f"did you mean {'.'.join([*parts[:-1], near[0]])}?" if near else f"known: {', '.join(known)}"
            raise ConfigError(f"{where}: unknown key {key}", change=hint) from None
        if first["type"] == "missing":
            raise ConfigError(f"{where}: {key} is missing", change=f"add {key} = …") from None
        reason = first["msg"].removeprefix("Value error, ")
        given = first.get("input")
        shown = f" = {given!r}" if not isinstance(given, dict) else ""
        raise ConfigError(f"{where}: {key}{shown}", change=reason) from None


def _known_keys(section: type[BaseModel], path: list[str]) -> list[str]:
    """Field names of the table that ``path`` leads to; union tags and list indices are stepped over."""
    tables: list[type[BaseModel]] = [section]
    for part in path:
        inner = [
            table
            for owner in tables
            if part in owner.model_fields
            for table in _tables(owner.model_fields[part].annotation)
        ]
        tables = inner or tables
    return sorted({name for table in tables for name in table.model_fields})


def _tables(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [table for inner in getattr(annotation, "__args__", ()) for table in _tables(inner)]
