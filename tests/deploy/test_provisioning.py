"""The files by which a Grafana provisions itself name what pushes name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from grafana.push import DATA_SOURCE_UID
from grafana.push.wanted import FOLDER_UID, wanted

PROVISIONING = Path(__file__).parents[2] / "deploy" / "grafana" / "provisioning"


def read(name: str) -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load((PROVISIONING / name / "wattgate.yml").read_text(encoding="utf-8"))
    assert document["apiVersion"] == 1
    return document


def test_provisioned_data_source_is_the_one_that_is_pushed() -> None:
    (source,) = read("datasources")["datasources"]
    pushed = next(thing for thing in wanted("$PROMETHEUS_URL") if thing.kind == "data source")
    assert source == pushed.body
    assert source["uid"] == DATA_SOURCE_UID


def test_provisioned_dashboards_lie_in_the_folder_of_pushed_ones() -> None:
    (provider,) = read("dashboards")["providers"]
    assert provider["folderUid"] == FOLDER_UID
    assert provider["type"] == "file"
