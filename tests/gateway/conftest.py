"""Fixtures of the data plane's tests."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.gateway.house import House, open_house


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    """The loop that workers run on."""
    return "asyncio", {"use_uvloop": True}


@pytest.fixture
async def house() -> AsyncIterator[House]:
    """A worker that knows `demo` and `demo:bf16`, both at the scripted engine."""
    async with open_house() as one:
        await one.know()
        yield one
