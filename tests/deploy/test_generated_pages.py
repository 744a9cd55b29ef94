"""docs/settings.md and docs/metrics.md say what the source says."""

from __future__ import annotations

from pathlib import Path

import pytest

from server.config import Config
from server.docs import PAGES, main, metrics_page, settings_page
from server.telemetry.metrics import CATALOGUE


def test_committed_pages_are_what_their_source_says(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check"]) == 0, capsys.readouterr().err


def test_check_shows_what_differs_and_what_to_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["generate", "--folder", str(tmp_path)]) == 0
    assert main(["check", "--folder", str(tmp_path)]) == 0
    page = tmp_path / "settings.md"
    page.write_text(page.read_text().replace("`8080`", "`9090`"))
    capsys.readouterr()
    assert main(["check", "--folder", str(tmp_path)]) == 1
    said = capsys.readouterr().err
    assert "settings.md differs" in said
    assert "`9090`" in said
    assert "make docs" in said


def test_a_missing_page_differs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "--folder", str(tmp_path)]) == 1
    said = capsys.readouterr().err
    assert all(name in said for name in PAGES)


@pytest.mark.parametrize(
    "row",
    [
        "| `gateway.port` | integer |  | `8080` | ≥ 1, ≤ 65535 | Port of the OpenAI-compatible API. |",
        "| `engines[].name` | text |  | required |  | The replica's name: unique; stands in file names and metrics. |",
        "| `engines[].ready_timeout_s` | number | seconds | `600.0` | > 0, ≤ 86400 | Longest start. |",
    ],
)
def test_a_setting_has_type_unit_default_range_and_meaning(row: str) -> None:
    assert row in settings_page().splitlines()


def test_every_section_of_the_file_has_a_table() -> None:
    page = settings_page()
    assert all(f"`{key}" in page for key in Config.model_fields)


def test_every_metric_has_a_row() -> None:
    page = metrics_page()
    assert all(f"| `{name}` |" in page for name in CATALOGUE)


def test_pages_name_no_place_on_the_machine_that_made_them() -> None:
    assert str(Path.home()) not in settings_page() + metrics_page()
