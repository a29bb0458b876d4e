"""Where the real data is, for tests that read it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder named by ``CYPHER_DATA``; without one the test is skipped."""
    named = os.environ.get("CYPHER_DATA")
    if not named or not Path(named).is_dir():
        pytest.skip("CYPHER_DATA names no folder")
    return Path(named)
