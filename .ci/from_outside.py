"""What a person meets after ``pip install``: commands, their time and exit codes, and every snippet of the pages.

Runs with the interpreter of a clean environment in a folder that holds ``README.md`` and ``docs/``.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path

BIN = Path(sys.executable).parent
CYPHER = str(BIN / "cypher")
ENVIRONMENT = {**os.environ, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"}
HELP_SECONDS = 0.5


def run(*command: str, expect: int = 0) -> subprocess.CompletedProcess[str]:
    """Run a command and stop at the wrong exit code."""
    ended = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, stdin=subprocess.DEVNULL)
    if ended.returncode != expect:
        sys.exit(f"{shlex.join(command)} ended with {ended.returncode}, not {expect}\n{ended.stdout}{ended.stderr}")
    return ended


def help_is_quick() -> None:
    """The best of five, since other work on the machine only ever adds time."""
    times = []
    for _ in range(5):
        started = time.perf_counter()
        run(CYPHER, "--help")
        times.append(time.perf_counter() - started)
    print(f"cypher --help: best of 5 {min(times):.2f} s")
    if min(times) > HELP_SECONDS:
        sys.exit(f"cypher --help takes {min(times):.2f} s: needs at most {HELP_SECONDS} s")


def answers_come_back() -> None:
    """Ask the documentation, from JSON, twice; then what is wrong with a call."""
    question = ("qa", "ask", "What share of the scores do the vectors have?", "docs", "--json")
    first = json.loads(run(CYPHER, *question).stdout)
    assert first["answers"], first
    for answer in first["answers"]:
        if answer["answer"] is not None:
            text = Path(answer["document"]).read_bytes().decode("utf-8")
            assert text[answer["offset_start"] : answer["offset_end"]] == answer["answer"], answer
    started = time.perf_counter()
    again = json.loads(run(CYPHER, *question).stdout)
    print(f"warm cypher qa ask: {time.perf_counter() - started:.2f} s")
    assert again["answers"] == first["answers"]
    for wrong in (["qa", "ask", "x", "no-such-folder"], ["qa", "ask", " ", "docs"], ["models", "info", "nonsense"]):
        ended = run(CYPHER, *wrong, expect=2)
        assert ended.stderr.count("\n") == 1, ended.stderr


def snippets_run() -> None:
    """Each line of a ``sh`` block as a command, all ``python`` blocks of a page as one program; there must be both."""
    kinds = set()
    for page in [Path("README.md"), *sorted(Path("docs").glob("*.md"))]:
        text = page.read_text(encoding="utf-8")
        blocks = re.findall(r"^```(python|sh)\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)
        commands = [line for kind, block in blocks if kind == "sh" for line in block.strip().splitlines()]
        for line in commands:
            run(*shlex.split(line))
        program = "\n".join(block for kind, block in blocks if kind == "python")
        if program:
            run(sys.executable, "-c", program)
        if blocks:
            print(f"{page}: {len(blocks)} blocks run")
        kinds |= {kind for kind, _ in blocks}
    if kinds != {"python", "sh"}:
        sys.exit(f"README.md and docs/ have blocks of {sorted(kinds)}: needs python and sh")


def main() -> None:
    """All of it, in a copy of the folder, so that stores land nowhere else."""
    with tempfile.TemporaryDirectory() as folder:
        for name in ("README.md", "docs"):
            (Path(folder) / name).symlink_to(Path(name).resolve())
        os.chdir(folder)
        help_is_quick()
        json.loads(run(CYPHER, "doctor", "--json").stdout)
        json.loads(run(CYPHER, "models", "matrix", "--json").stdout)
        answers_come_back()
        snippets_run()


main()
