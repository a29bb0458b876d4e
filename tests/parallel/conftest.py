"""One pool of processes for all tests of parallelism."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from workers import Workers


@pytest.fixture(scope="session")
def workers() -> Iterator[Workers]:
    """Processes that stay alive between cases."""
    pool = Workers()
    yield pool
    pool.close()
