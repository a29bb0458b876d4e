"""Visible text of pages."""

from __future__ import annotations

import pytest

from cypher.documents.html import read_html


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("<p>a &amp; b&nbsp;&lt;c&gt; &#x41;</p>", "a & b <c> A"),
        ("<p>one\n   two</p><p>three</p>", "one two\n\nthree"),
        ("<div>a<div>b</div>c</div>", "a\n\nb\n\nc"),
        ("a<b>b</b> c <i> d</i>e<br><br>f", "ab c de\nf"),
        ("<style>x{}</style><script>y</script><nav>menu</nav><p>text<!-- no --></p>", "text"),
        ("<p hidden>a</p><p style='display:none'>b</p><p aria-hidden=true>c</p><div role=navigation>d</div>e", "e"),
        ("<h1>Top <a>¶</a></h1><p>x</p><h3>Sub<br>title</h3>y", "# Top\n\nx\n\n### Sub title\n\ny"),
        ("<h2></h2><p>no stray mark", "no stray mark"),
        ("<ul><li>a<ul><li>b</ul><li><p>c</p></ul>", "- a\n  - b\n- c"),
        ("<ul><li></li></ul><p>x", "x"),
        (
            "<table><tr><th>k<th>v<tr><td>a <td><p>1</p><p>2</p></table>after",
            "| k | v |\n| a | 1 2 |\n\nafter",
        ),
        ("<table><tr><td><h1>T</h1>p<td><table><tr><td>q</table></table>", "# T\n\np\n\n| q |"),
        ("<pre><b>def</b> f():\n    # c\n  <br>x</pre>z", "    def f():\n        # c\n      \n    x\n\nz"),
        ("<details><summary>More</summary>body</details>", "More\n\nbody"),
        ("no <closed <p tags & no quotes", "no"),
    ],
)
def test_text(source: str, text: str) -> None:
    lines = [line.rstrip() for line in read_html(source.encode(), "a.html").text.split("\n")]
    assert lines == [line.rstrip() for line in text.split("\n")]


@pytest.mark.parametrize(
    ("source", "title"),
    [
        ("<title> Fish &amp;\n chips </title><h1>Other</h1>", "Fish & chips"),
        ("<h1>Only heading¶</h1>", "Only heading"),
        ("<svg><title>icon</title></svg><p>x", None),
    ],
)
def test_title(source: str, title: str | None) -> None:
    assert read_html(f"{source}<p>x".encode(), "a.html").meta.get("title") == title


@pytest.mark.parametrize(
    ("declared", "encoding", "used"),
    [
        ("shift_jis", "shift_jis", "shift_jis"),
        ("iso-8859-1", "cp1252", "cp1252"),
        ("utf-8", "cp1252", "cp1252"),
        ("idna", "cp1252", "cp1252"),
        ("no-such-thing", "cp1252", "cp1252"),
    ],
)
def test_declared_encoding(declared: str, encoding: str, used: str) -> None:
    word = "日本" if encoding == "shift_jis" else "café €"
    content = f'<meta http-equiv="x" content="text/html; charset={declared}"><p>{word}'.encode(encoding)
    document = read_html(content, "a.html")
    assert (document.text, document.meta["encoding"]) == (word, used)


def test_thousands_of_nested_elements() -> None:
    assert read_html(b"<div>" * 5_000 + b"deep", "a.html").text == "deep"
