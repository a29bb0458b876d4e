"""The command line: one file a command group, no logic; starting it loads no torch."""

from __future__ import annotations

import sys


def main() -> None:
    """Run ``cypher`` with the arguments it was called with, and exit."""
    from cypher.cli.app import run_as_program

    sys.exit(run_as_program(sys.argv[1:]))
