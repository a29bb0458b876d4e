"""What all sections of a recipe share: frozen, keyword-only, unknown keys refused with the nearest known one."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from cypher.errors import ConfigError, nearest


class Section(BaseModel):
    """One table of a recipe.

    Fields document themselves: the same text is the JSON schema's description. Numbers are finite.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)


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
        raise refusal(error, section, where=where) from None


def refusal(error: ValidationError, annotation: Any, *, where: str) -> ConfigError:
    """The first wrong key of ``error`` in one line; ``annotation`` is a section, or a union of some."""
    first = error.errors()[0]
    parts, owners = _shown(first["loc"], _tables(annotation))
    key = ".".join(parts)
    if first["type"] == "extra_forbidden":
        known = sorted({name for owner in owners for name in owner.model_fields})
        near = difflib.get_close_matches(parts[-1], known, n=1)
        hint = f"did you mean {'.'.join([*parts[:-1], near[0]])}?" if near else f"known: {', '.join(known)}"
        return ConfigError(f"{where}: unknown key {key}", change=hint)
    if first["type"] == "missing":
        return ConfigError(f"{where}: {key} is missing", change=f"add {key} = …")
    reason = first["msg"].removeprefix("Value error, ")
    given = first.get("input")
    words = re.findall(r"'([^']*)'", first["ctx"]["expected"]) if first["type"] == "literal_error" else []
    if words:
        reason = nearest(str(given), words)
    shown = f" = {given!r}" if not isinstance(given, dict) else ""
    return ConfigError(f"{where}: {key}{shown}" if key else where, change=reason)


def _shown(path: Sequence[str | int], tables: list[type[BaseModel]]) -> tuple[list[str], list[type[BaseModel]]]:
    """The path as a person writes it, without the tags of unions, and the tables that its last key belongs to."""
    shown = []
    for number, part in enumerate(path):
        is_last = number == len(path) - 1
        tagged = [table for table in tables if _is_tag(part, table)]
        owners = [table for table in tables if part in table.model_fields]
        if tagged and len(tables) > 1 and not (is_last and owners):
            tables = tagged
            continue
        if owners or is_last or isinstance(part, int):
            shown.append(str(part))
        if owners and not is_last:
            tables = [
                inner for owner in owners for inner in _tables(owner.model_fields[str(part)].annotation)
            ] or tables
    return shown, tables


def _tables(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [table for inner in getattr(annotation, "__args__", ()) for table in _tables(inner)]


def _is_tag(part: str | int, table: type[BaseModel]) -> bool:
    """Whether a part of a path is no key: it says which member of a union ``table`` is."""
    return isinstance(part, str) and any(field.default == part for field in table.model_fields.values())
