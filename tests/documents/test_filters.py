"""The filter language."""

from __future__ import annotations

import random
from typing import Any

import pytest

from cypher.documents import And, Comparison, Filter, Membership, Not, Or, parse_filter
from cypher.errors import ConfigError

META: dict[str, Any] = {
    "format": "pdf",
    "year": 2020,
    "score": 0.5,
    "draft": False,
    "title": 'Say "hi"',
    "author": None,
    "date": "2020-05-17",
    "sous-titre": "x",
    "größe": 1,
    "a.b": 3,
}


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ('format == "pdf"', True),
        ("format == 'pdf'", True),
        ('format != "pdf"', False),
        ("year > 2019", True),
        ("year >= 2020 and year <= 2020", True),
        ("year<2020", False),
        ("year == 2020.0", True),
        ("year > -1e3", True),
        ("score >= .5", True),
        ("score < +0.5", False),
        ('date >= "2020-05-01" and date < "2020-06-01"', True),
        ('format in ["txt", "pdf"]', True),
        ('format not in ["txt", "pdf"]', False),
        ("format in []", False),
        ("year in [2019, 2020]", True),
        ("draft == false", True),
        ("draft == False and draft != TRUE", True),
        (r'title == "Say \"hi\""', True),
        (r"""title == 'Say "hi"'""", True),
        ('sous-titre == "x" and größe == 1 and a.b == 3', True),
        # and binds closer than or, not closer than and
        ('format == "pdf" or year < 0 and draft == true', True),
        ('(format == "pdf" or year < 0) and draft == true', False),
        ("not draft == true and year == 2020", True),
        ("not not year == 2020", True),
        ("NOT (year == 2020 OR year == 2021)", False),
        # a missing key and null are the same
        ('missing == "x"', False),
        ('missing != "x"', True),
        ("missing > 1", False),
        ("missing <= 1", False),
        ('missing in ["x"]', False),
        ('missing not in ["x"]', True),
        ("not missing > 1", True),
        ("missing == null", True),
        ("author == null", True),
        ("author != null", False),
        ("year != null", True),
        ("author > null", False),
        ("missing in [null]", True),
        # kinds never mix
        ('year > "2019"', False),
        ('year == "2020"', False),
        ('year != "2020"', True),
        ("format > 1", False),
        ("draft == 0", False),
        ("draft < 1", False),
        ("year == true", False),
        ("draft in [0, 1]", False),
    ],
)
def test_matches(expression: str, expected: bool) -> None:
    assert parse_filter(expression).matches(META) is expected


def test_tree() -> None:
    expected = And(
        (
            Comparison("format", "==", "pdf"),
            Not(Or((Comparison("year", "<", 2019), Membership("title", ("a", 2, None, True))))),
        )
    )
    assert parse_filter('format == "pdf" and not (year < 2019 or title in ["a", 2, null, true])') == expected


@pytest.mark.parametrize(
    ("expression", "position", "found", "expected"),
    [
        ("", 1, "the end", "a key"),
        ("   ", 4, "the end", "a key"),
        ("format", 7, "the end", "one of == !="),
        ('format = "pdf"', 8, "=", "one of == !="),
        ("format ==", 10, "the end", "a value"),
        ("format == pdf", 11, "pdf", 'a value: "text" in quotes'),
        ('format == "pdf', 11, '" without its partner', "a value"),
        ('"pdf" == format', 1, '"pdf"', "a key"),
        ("year > 2019 && year < 3", 13, "&", '"and", "or" or the end'),
        ("year > 2019 year < 3", 13, "year", '"and", "or" or the end'),
        ("(year > 2019", 13, "the end", '"and", "or" or ")"'),
        ("year > 2019)", 12, ")", '"and", "or" or the end'),
        ("year not 3", 10, "3", '"in"'),
        ("year in 3", 9, "3", "a list"),
        ("year in [3 4]", 12, "4", '"," or "]"'),
        ("year in [3,]", 12, "]", "a value"),
        ("year == 3x", 9, "3", "a value"),
        ("year == 1.2.3", 9, "1", "a value"),
        ("in == 3", 1, "in", "a key"),
        ("year == 3 and", 14, "the end", "a key"),
        ("not", 4, "the end", "a key"),
        ("__import__('os')", 11, "(", "one of =="),
        ("(" * 5000, 51, "(", "at most 50 nested"),
        ("not " * 5000, 201, "not", "at most 50 nested"),
    ],
)
def test_errors_name_the_place_and_what_was_expected(expression: str, position: int, found: str, expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_filter(expression)
    message = str(caught.value)
    assert f" has {found} at character {position}: needs {expected}" in message
    assert "\n" not in message
    assert len(message) < 400


def test_any_text_parses_or_is_refused() -> None:
    generator = random.Random(3)
    tokens = [
        "year",
        "format",
        "==",
        "!=",
        ">",
        "<=",
        "in",
        "not",
        "and",
        "or",
        "(",
        ")",
        "[",
        "]",
        ",",
        "1",
        "-2.5e3",
        '"a"',
        "'",
        "null",
        "true",
        "\\",
        "=",
        "²",
        "9" * 5000,
        "\0",
    ]
    parsed = 0
    for _ in range(20_000):
        text = " ".join(generator.choices(tokens, k=generator.randint(1, 8)))
        try:
            condition = parse_filter(text)
        except ConfigError:
            continue
        assert isinstance(condition, Filter)
        assert condition.matches(META) in {True, False}
        parsed += 1
    assert parsed > 5
