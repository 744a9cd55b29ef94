"""Fixtures of the tests of whole processes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.fleet import wait_until
from tests.server.launched import BOUND_S, Launched, write_plan


@pytest.fixture
def launched(tmp_path: Path) -> Iterator[Launched]:
    running = Launched(write_plan(tmp_path))
    try:
        wait_until(running.answers, bound_s=BOUND_S, what="both planes answer")
        yield running
    finally:
        running.close()
