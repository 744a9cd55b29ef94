"""How each kind of thing is read from and written to a Grafana."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from grafana_client import GrafanaApi

from grafana.push.target import absent_as_none
from grafana.push.wanted import FOLDER_UID, Thing

__all__ = ["STORES", "Store"]

_VOLATILE: Final = frozenset({"id", "version"})
"""Of a dashboard: Grafana counts them up."""


@dataclass(frozen=True, slots=True)
class Store:
    """One kind."""

    read: Callable[[GrafanaApi, str], Mapping[str, Any] | None]
    """By uid; None: there is none."""
    create: Callable[[GrafanaApi, Thing], Any]
    update: Callable[[GrafanaApi, Thing], Any]


def _read_dashboard(api: GrafanaApi, uid: str) -> Mapping[str, Any] | None:
    found = absent_as_none(lambda: api.dashboard.get_dashboard(uid))()
    return None if found is None else {k: v for k, v in found["dashboard"].items() if k not in _VOLATILE}


def _write_dashboard(api: GrafanaApi, thing: Thing) -> Any:
    body = {
        "dashboard": dict(thing.body),
        "folderUid": FOLDER_UID,
        "overwrite": True,
        "message": "wattgate grafana push",
    }
    return api.dashboard.update_dashboard(body)


STORES: Final[Mapping[str, Store]] = {
    "folder": Store(
        read=lambda api, uid: absent_as_none(lambda: api.folder.get_folder(uid))(),
        create=lambda api, thing: api.folder.create_folder(thing.title, uid=thing.uid),
        update=lambda api, thing: api.folder.update_folder(thing.uid, title=thing.title, overwrite=True),
    ),
    "data source": Store(
        read=lambda api, uid: absent_as_none(lambda: api.datasource.get_datasource_by_uid(uid))(),
        create=lambda api, thing: api.datasource.create_datasource(dict(thing.body)),
        update=lambda api, thing: api.datasource.update_datasource_by_uid(thing.uid, dict(thing.body)),
    ),
    "dashboard": Store(read=_read_dashboard, create=_write_dashboard, update=_write_dashboard),
    "alert rule": Store(
        read=lambda api, uid: absent_as_none(lambda: api.alertingprovisioning.get_alertrule(uid))(),
        create=lambda api, thing: api.alertingprovisioning.create_alertrule(dict(thing.body)),
        update=lambda api, thing: api.alertingprovisioning.update_alertrule(thing.uid, dict(thing.body)),
    ),
}
