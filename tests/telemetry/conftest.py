"""A control plane's telemetry, without the control plane."""

from __future__ import annotations

import pytest

from server.config import TelemetrySettings
from server.telemetry import LabelCaps, Traffic
from tests.fakes.clock import FakeClock


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def caps(clock: FakeClock) -> LabelCaps:
    return LabelCaps(TelemetrySettings(), clock)


@pytest.fixture
def traffic(caps: LabelCaps) -> Traffic:
    return Traffic(caps)
