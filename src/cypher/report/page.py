"""One HTML page that needs nothing else: for a report that is mailed, archived or printed."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable

from cypher.report.markup import escaped
from cypher.report.palette import COLOURS

_MARKS = "\n".join(
    f"mark.c{number} {{ background: {colour}40; border-bottom: 2px solid {colour}; }}"
    for number, colour in enumerate(COLOURS)
)
_STYLE = f"""
:root {{ color-scheme: light dark; --ink: #222; --faint: #666; --paper: #fff;
  --line: #ddd; --panel: #f6f6f6; }}
@media (prefers-color-scheme: dark) {{
  :root {{ --ink: #e6e6e6; --faint: #a0a0a0; --paper: #181818; --line: #3a3a3a; --panel: #222; }}
}}
body {{ margin: 0 auto; padding: 2rem 1.25rem 4rem; max-width: 46rem; color: var(--ink);
  background: var(--paper); font: 1rem/1.55 system-ui, sans-serif; }}
h1, h2, h3 {{ line-height: 1.25; text-wrap: balance; }}
h1 {{ font-size: 1.7rem; margin: 0 0 1.5rem; }}
h2 {{ font-size: 1.25rem; margin: 2.2rem 0 .6rem; }}
h3 {{ font-size: 1.05rem; margin: 1.6rem 0 .4rem; }}
a {{ color: inherit; }}
small, .cut {{ color: var(--faint); }}
code, pre {{ font: .9em/1.45 ui-monospace, monospace; }}
pre, .text {{ padding: .7rem .9rem; background: var(--panel); border-radius: 6px; overflow-x: auto; }}
.text {{ white-space: pre-wrap; overflow-wrap: anywhere; margin: .6rem 0; }}
table {{ border-collapse: collapse; display: block; overflow-x: auto; font-variant-numeric: tabular-nums; }}
th, td {{ padding: .3rem .8rem .3rem 0; text-align: left; vertical-align: top;
  border-bottom: 1px solid var(--line); }}
mark {{ color: inherit; padding: .05em 0; }}
mark.shared {{ border-bottom-style: double; border-bottom-width: 4px; }}
mark.point {{ padding: 0 .12em; margin: 0 .08em; }}
{_MARKS}
@media print {{
  :root {{ --ink: #000; --faint: #444; --paper: #fff; --line: #bbb; --panel: #fff; }}
  body {{ max-width: none; padding: 0; font-size: 10.5pt; }}
  .text {{ border: 1px solid var(--line); }}
  mark {{ print-color-adjust: exact; -webkit-print-color-adjust: exact; }}
  h1, h2, h3 {{ break-after: avoid; }}
  tr, li {{ break-inside: avoid; }}
}}
"""
# Only this very style sheet: no script, no picture, no request, no form, no frame.
_STYLE_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
_POLICY = "; ".join(
    (
        "default-src 'none'",
        f"style-src 'sha256-{_STYLE_HASH}'",
        "base-uri 'none'",
        "form-action 'none'",
    )
)


def page(title: str, body_parts: Iterable[str]) -> str:
    """A whole HTML page: one style sheet inside, light or dark as the reader's system is, ready to print.

    The page's content security policy allows its own style sheet, nothing else, so ``style`` attributes and scripts
    in the parts have no effect.

    Args:
        title: Plain text, for the window and the top of the page.
        body_parts: HTML fragments in order, already escaped: from `render_spans`, or own markup made with `escaped`.

    Returns:
        The page's HTML; `cypher.files.write_text` saves it.

    Example:
        >>> html = page("Answers", ["<p>Paris</p>"])
        >>> html.startswith("<!doctype html>"), "Content-Security-Policy" in html
        (True, True)
    """
    body = "\n".join(body_parts)
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="referrer" content="no-referrer">
<title>{escaped(title)}</title>
<style>{_STYLE}</style>
</head>
<body>
<h1>{escaped(title)}</h1>
{body}
</body>
</html>
"""
