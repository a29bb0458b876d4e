from __future__ import annotations

from collections import Counter

import pytest

from cypher.data.splits import assign
from cypher.errors import ConfigError

KEYS = [f"key {n}" for n in range(20_000)]


def test_the_division_is_the_same_everywhere() -> None:
    # Written out: a change of the hash would silently move rows between training and evaluation.
    parts = "".join(assign(key, fractions={"a": 0.5, "b": 0.5}) for key in KEYS[:24])
    assert parts == "abbbabaabbbaababbbbaaaab"


def test_parts_have_their_shares_and_salts_divide_anew() -> None:
    fractions = {"train": 0.9, "development": 0.08, "test": 0.02, "none": 0.0}
    parts = [assign(key, fractions=fractions) for key in KEYS]
    counts = Counter(parts)
    assert counts["none"] == 0
    for part, share in fractions.items():
        assert counts[part] / len(KEYS) == pytest.approx(share, abs=0.006)
    salted = [assign(key, fractions=fractions, salt="other") for key in KEYS]
    agreeing = sum(a == b for a, b in zip(parts, salted, strict=True)) / len(KEYS)
    assert agreeing == pytest.approx(0.9**2 + 0.08**2 + 0.02**2, abs=0.02)


def test_growing_the_last_part_moves_rows_only_into_it() -> None:
    small, large = {"train": 0.9, "held": 0.1}, {"train": 0.8, "held": 0.2}
    for key in KEYS[:2000]:
        if assign(key, fractions=small) == "held":
            assert assign(key, fractions=large) == "held"


@pytest.mark.parametrize("fractions", [{"a": 0.5, "b": 0.4}, {"a": 1.5, "b": -0.5}, {}, {"a": float("nan"), "b": 0.5}])
def test_shares_must_sum_to_one(fractions: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="needs shares of at least 0 that sum to 1"):
        assign("key", fractions=fractions)


def test_any_text_is_a_key() -> None:
    assert assign("\ud800 lone surrogate", fractions={"all": 1.0}) == "all"
    third = {"a": 1 / 3, "b": 1 / 3, "c": 1 / 3}
    assert {assign(key, fractions=third) for key in KEYS[:100]} == {"a", "b", "c"}
