"""Sentence borders."""

from __future__ import annotations

import random
import time

import pytest

from cypher.documents import split_sentences


@pytest.mark.parametrize(
    "marked",  # "¦" stands where a border is expected
    [
        "One. ¦Two! ¦Three? ¦Four",
        "Dr. Smith met Mrs. Jones. ¦They spoke.",
        "It costs 3.50 dollars, i.e. less than v2.0.1. ¦Good.",
        "Written by J. K. Rowling and J.R.R. Tolkien. ¦She agreed.",
        "The U.S. Army left. ¦He lives in the U.S. ¦The end.",
        "See Fig. 3 and Sec. (b). ¦I said no. ¦Then p. 5, pp. 7 and No. 9.",
        "As Lee et al. (2019) and Lee et al. [3] say. ¦Fine.",
        "On Jan. 5 we met. ¦In May we left.",
        "At 5 p.m. Monday he left. ¦My friend and I. ¦Always.",
        'He asked: "Why?" she said. ¦"Because." ¦Done.',
        "“Stop!” he cried. ¦“No.” ¦(So it was.) ¦End.",
        "**Bold end.** ¦_Next one._ ¦Last.",
        "Wait... what? ¦Yes… ¦And then... ¦Go.",
        "He was born in 1990. ¦Then 12. ¦Right.",
        "1. First point. ¦More.",
        "Really?! ¦Yes!!! ¦No way.",
        "a wrapped\nline goes on. ¦New\r\nsentence.",
        "Heading\n\n¦text without stop\r\n\r\n¦more\n \n¦end",
        "page one\f¦page two",
        "Intro:\n¦- first\n¦- second\n¦* third\n¦1. fourth\n¦(b) fifth\n¦• sixth",
        "# Title\n¦Text right below.\n¦## Part\n¦| a | b |\n¦| 1 | 2 |\n¦After.",
        "今天天气很好。¦我们去公园吧！¦好吗？¦“好。”¦他说",
        "これはペンです。¦「はい。」¦次の文",
        "यह पहला है। ¦यह दूसरा है।",
        "no space.here and e.g.this stays",
        "ellipsis . ¦Spaced",
        "",
        "  \n\f ",
        "   lone   ",
    ],
)
def test_borders(marked: str) -> None:
    text = marked.replace("¦", "")
    expected = [part.strip() for part in marked.split("¦") if part.strip()]
    assert [text[start:end] for start, end in split_sentences(text)] == expected


def test_every_character_is_in_exactly_one_sentence() -> None:
    alphabet = [
        "a",
        "B",
        " ",
        "\n",
        "\r",
        "\r\n",
        "\f",
        ".",
        "?",
        "…",
        "。",
        "#",
        "# ",
        "- ",
        "1.",
        "|",
        '"',
        ")",
        "\u2029",
        "\x85",
        "e.g.",
        "Dr.",
        "\ud800",
    ]
    generator = random.Random(7)
    for _ in range(3000):
        text = "".join(generator.choices(alphabet, k=generator.randint(0, 60)))
        covered = 0
        for start, end in split_sentences(text):
            assert covered <= start < end
            assert not text[covered:start].strip()
            assert not text[start].isspace()
            assert not text[end - 1].isspace()
            covered = end
        assert not text[covered:].strip()


@pytest.mark.parametrize(
    "unit",
    [
        ".",
        '?"',
        "a.",
        ". ",
        "\n",
        "\r",
        " ",
        "\n ",
        "|\n",
        "# ",
        "\n# a",
        "1. ",
        "。",
        "A. ",
        "no. ",
        "x",
        "(a) ",
        '."',
        "\n- ",
    ],
)
def test_time_is_linear_in_the_text(unit: str) -> None:
    text = unit * (400_000 // len(unit))
    start = time.process_time()
    split_sentences(text)
    assert time.process_time() - start < 5  # about 0.2 s; quadratic work would take minutes
