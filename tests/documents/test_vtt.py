"""WebVTT transcripts."""

from __future__ import annotations

from pathlib import Path

import pytest

from cypher.documents import cue_at, read_cues, read_document

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
def test_text_and_times(tmp_path: Path, newline: str, mark: str) -> None:
    path = tmp_path / "talk.vtt"
    path.write_bytes((mark + TALK).replace("\n", newline).encode())
    document, cues = read_document(path), read_cues(path)
    assert document.text == "Good morning,\nall & everyone.\nSecond cue.\n\nAn hour later."
    assert document.meta["title"] == "A short talk"
    assert [cue.text_in(document.text) for cue in cues] == [
        "Good morning,\nall & everyone.",
        "Second cue.",
        "An hour later.",
    ]
    assert [dict(cue.attributes) for cue in cues] == [
        {"start_seconds": 1.0, "end_seconds": 4.5, "speaker": "Ann Lee"},
        {"start_seconds": 5.0, "end_seconds": 7.0, "speaker": "Ann Lee"},
        {"start_seconds": 3600.25, "end_seconds": 3602.0, "speaker": "Bo"},
    ]
    found = cue_at(cues, document.text.index("hour"))
    assert found is not None
    assert found.attributes["start_seconds"] == 3600.25
    assert cue_at(cues, 0) is cues[0]
    assert cue_at([], 0) is None


@pytest.mark.parametrize(
    ("inline_time", "text"), [("<00:00:01.500>", "one two\nthree"), ("", "one two\none two\nthree")]
)
def test_rolling_captions_are_said_once(tmp_path: Path, inline_time: str, text: str) -> None:
    path = tmp_path / "rolling.vtt"
    path.write_text(
        f"WEBVTT\n\n00:01.000 --> 00:02.000\none {inline_time}<c>two</c>\n\n00:02.000 --> 00:03.000\none two\nthree\n"
    )
    assert read_document(path).text == text
