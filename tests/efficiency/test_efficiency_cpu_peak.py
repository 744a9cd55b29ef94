"""The measured peak of CPU cores."""

from __future__ import annotations

import os

import pytest

from server.efficiency.cpu_peak import measure_cpu_peak
from server.errors import StartError
from server.models import Arithmetic


def test_what_is_measured_is_float32_and_memory_and_says_so():
    peak = measure_cpu_peak([min(os.sched_getaffinity(0))], seconds=0.05)

    assert peak.source == "measured"
    assert peak.flops_per_s.keys() == {Arithmetic.FP32}
    assert peak.flops_per_s[Arithmetic.FP32] > 1e8
    assert peak.bytes_per_s is not None
    assert peak.bytes_per_s > 1e7


def test_a_core_that_is_not_there_is_an_error_that_names_it():
    with pytest.raises(StartError, match="The cores 1000 cannot be measured"):
        measure_cpu_peak([1000], seconds=0.05)
