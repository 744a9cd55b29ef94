"""Fixtures of the meters' tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes.nvml_library import NvmlLibrary, compile_stub


@pytest.fixture(scope="session")
def nvml_stub(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The compiled library."""
    return compile_stub(tmp_path_factory.mktemp("nvml"))


@pytest.fixture
def nvml(nvml_stub: Path, tmp_path: Path) -> Iterator[NvmlLibrary]:
    """A host with one H200."""
    library = NvmlLibrary(nvml_stub, tmp_path / "nvml.txt")
    before = library.started
    yield library
    assert library.started <= before + 1, "NVML was started more often than ended"
