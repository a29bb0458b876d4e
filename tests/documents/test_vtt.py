"""WebVTT transcripts."""

from __future__ import annotations

from pathlib import Path

import pytest

from cypher.documents import read_document
from cypher.documents.vtt import read_vtt

TALK = """WEBVTT - A short talk
Kind: captions

STYLE
::cue { color: red }

NOTE a remark
over two lines

intro
00:00:01.000 --> 00:00:04.500 align:start
<v.loud Ann Lee>Good morning,
<b>all</b> &amp; everyone.

00:05.000 --> 00:07.000
<v Ann Lee>Second <c.red>cue</c>.

01:00:00.250 --> 01:00:02.000
<v Bo>An hour later.

01:00:03.000 --> 01:00:04.000
<i></i>
"""


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_what_is_said_without_times_tags_and_speakers(tmp_path: Path, newline: str, mark: str) -> None:
    path = tmp_path / "talk.vtt"
    path.write_bytes((mark + TALK).replace("\n", newline).encode())
    document = read_document(path)
    assert document.text == "Good morning,\nall & everyone.\nSecond cue.\n\nAn hour later."
    assert document.meta["title"] == "A short talk"


@pytest.mark.parametrize(
    ("inline_time", "text"), [("<00:00:01.500>", "one two\nthree"), ("", "one two\none two\nthree")]
)
def test_rolling_captions_are_said_once(tmp_path: Path, inline_time: str, text: str) -> None:
    path = tmp_path / "rolling.vtt"
    path.write_text(
        f"WEBVTT\n\n00:01.000 --> 00:02.000\none {inline_time}<c>two</c>\n\n00:02.000 --> 00:03.000\none two\nthree\n"
    )
    assert read_document(path).text == text


@pytest.mark.parametrize("payload", ["<v {}", "<v.{}", "<v.loud {}", "<v{}x", "<v Ann{}"])
@pytest.mark.parametrize("part", [" ", "<v ", "<v.a", "<v.a "])
def test_an_unclosed_tag_takes_no_longer_than_it_is_long(payload: str, part: str) -> None:
    """A search that began anew at every character would take minutes for so many."""
    content = f"WEBVTT\n\n00:01.000 --> 00:02.000\nHi.\n{payload.format(part * (2_000_000 // len(part)))}\n"
    assert read_vtt(content.encode(), "a.vtt").text[:6] == "Hi.\n<v"


@pytest.mark.parametrize("tag", ["<v Ann>", "<v.loud Ann>", "<v   Ann >", "<v.a.b\nAnn>"])
def test_speakers_are_told_apart(tag: str) -> None:
    cue = "00:01.000 --> 00:02.000\n"
    content = f"WEBVTT\n\n{cue}{tag}One.\n\n{cue}<v Ann>Two.\n\n{cue}<v Bo>Three.\n"
    assert read_vtt(content.encode(), "a.vtt").text.replace("Ann>", "").split("\n")[-3:] == ["Two.", "", "Three."]
