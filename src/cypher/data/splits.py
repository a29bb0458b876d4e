"""Which part of a data set a row belongs to: by a hash of its content, the same on every machine."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping

from cypher.errors import ConfigError


def assign(key: str, *, fractions: Mapping[str, float], salt: str = "") -> str:
    """The part of ``fractions`` that ``key`` falls into.

    Rows with the same key share a part, whatever their order and whatever else the set holds.

    Args:
        key: What must not be divided: a passage's text, a question's id.
        fractions: Part → share of all keys; the shares sum to 1. Their order matters.
        salt: Another one gives another division.

    Raises:
        ConfigError: A negative share, or a sum other than 1.

    Example:
        >>> parts = [assign(str(n), fractions={"train": 0.9, "development": 0.1}) for n in range(1000)]
        >>> parts.count("train")
        900
    """
    if min(fractions.values(), default=-1.0) < 0 or not math.isclose(sum(fractions.values()), 1, abs_tol=1e-9):
        raise ConfigError(
            f"fractions {dict(fractions)} sum to {sum(fractions.values()):g}",
            needed="shares of at least 0 that sum to 1",
        )
    digest = hashlib.sha256(f"{salt}\0{key}".encode("utf-8", "surrogatepass")).digest()
    drawn = int.from_bytes(digest[:8], "big") / 2**64
    reached = 0.0
    parts = [part for part, share in fractions.items() if share > 0]
    for part in parts:
        reached += fractions[part]
        if drawn < reached:
            return part
    return parts[-1]  # the shares' sum fell short of 1 by rounding
