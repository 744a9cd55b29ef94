"""A Grafana as far as pushes need one: it keeps what it is given, and refuses what the real one would refuse."""

from __future__ import annotations

import json
import re
import threading
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

__all__ = ["TOKEN", "GrafanaServer", "grafana_server"]

TOKEN = "glsa_of-the-test"
USER, PASSWORD = "admin", "open sesame"

Answer = tuple[int, Any]


class GrafanaServer(ThreadingHTTPServer):
    """Folders, data sources, dashboards, alert rules and annotations; `writes` counts what changed anything."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.version = "11.6.0"
        self.folders: dict[str, dict[str, Any]] = {}
        self.data_sources: dict[str, dict[str, Any]] = {}
        self.dashboards: dict[str, dict[str, Any]] = {}
        self.alert_rules: dict[str, dict[str, Any]] = {}
        self.annotations: list[dict[str, Any]] = []
        self.writes: list[str] = []
        self.broken = False
        """Everything is answered with 500."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    # --- what each path does ------------------------------------------------------------------------------------------

    def put_folder(self, body: dict[str, Any]) -> Answer:
        uid = body.get("uid")
        if not isinstance(body.get("title"), str) or not isinstance(uid, str) or not _is_uid(uid):
            return 400, {"message": "folder title and uid must be given"}
        if uid in self.folders:
            return 412, {"message": "a folder with that uid exists"}
        self.folders[uid] = {"uid": uid, "title": body["title"], "id": len(self.folders) + 1, "version": 1}
        return 200, self.folders[uid]

    def put_data_source(self, body: dict[str, Any]) -> Answer:
        if not {"name", "type", "access", "url"} <= body.keys() or body["access"] not in {"proxy", "direct"}:
            return 400, {"message": "bad request data"}
        if body["uid"] in self.data_sources:
            return 409, {"message": "data source with the same name already exists"}
        self.data_sources[body["uid"]] = {"id": 1, "readOnly": False, **body}
        return 200, {"datasource": self.data_sources[body["uid"]], "message": "Datasource added"}

    def put_dashboard(self, body: dict[str, Any]) -> Answer:
        board = body.get("dashboard")
        if not isinstance(board, dict) or not board.get("title") or not _is_uid(board.get("uid", "")):
            return 400, {"message": "Dashboard title cannot be empty"}
        if body.get("folderUid") not in self.folders:
            return 400, {"message": "folder not found"}
        if board["uid"] in self.dashboards and not body.get("overwrite"):
            return 412, {"status": "version-mismatch", "message": "The dashboard has been changed by someone else"}
        for panel in board["panels"]:
            if not {"type", "gridPos"} <= panel.keys() or (panel["type"] != "row" and not panel.get("targets")):
                return 400, {"message": f"a panel of {board['title']} is no panel"}
        version = self.dashboards.get(board["uid"], {}).get("version", 0) + 1
        self.dashboards[board["uid"]] = {**board, "id": len(self.dashboards) + 1, "version": version}
        return 200, {"status": "success", "uid": board["uid"], "version": version}

    def put_alert_rule(self, body: dict[str, Any]) -> Answer:
        needed = {"title", "ruleGroup", "folderUID", "condition", "data", "noDataState", "execErrState", "for"}
        if not needed <= body.keys() or body["folderUID"] not in self.folders or not _is_uid(body.get("uid", "")):
            return 400, {"message": f"invalid alert rule: {sorted(needed - body.keys())}"}
        if body["condition"] not in {one["refId"] for one in body["data"]}:
            return 400, {"message": "invalid alert rule: condition does not exist"}
        sources = {one["datasourceUid"] for one in body["data"]}
        if not sources <= {"__expr__", *self.data_sources}:
            return 400, {"message": f"invalid alert rule: no data source {sources}"}
        self.alert_rules[body["uid"]] = {"id": len(self.alert_rules), "orgID": 1, "provenance": "api", **body}
        return 201, self.alert_rules[body["uid"]]

    def put_annotation(self, body: dict[str, Any]) -> Answer:
        if not body.get("text") or not isinstance(body.get("time"), int):
            return 400, {"message": "Failed to save annotation"}
        self.annotations.append({"id": len(self.annotations) + 1, **body})
        return 200, {"message": "Annotation added", "id": len(self.annotations)}


@contextmanager
def grafana_server() -> Iterator[GrafanaServer]:
    server = GrafanaServer()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _is_uid(uid: str) -> bool:
    return bool(re.fullmatch(r"[A-Za-z0-9_-]{1,40}", uid))


class _Handler(BaseHTTPRequestHandler):
    server: GrafanaServer

    def do_GET(self) -> None:
        self._answer(self._get)

    def do_POST(self) -> None:
        self._answer(self._post)

    def do_PUT(self) -> None:
        self._answer(self._put)

    def log_message(self, *_: Any) -> None:
        """Nobody reads it."""

    def _get(self) -> Answer:
        server, path = self.server, urlsplit(self.path).path
        if path == "/api/frontend/settings":
            return 200, {"buildInfo": {"version": server.version, "commit": "0"}}
        if path == "/api/annotations":
            tags = set(parse_qs(urlsplit(self.path).query).get("tags", []))
            return 200, [one for one in server.annotations if tags <= set(one["tags"])]
        for prefix, kept in (
            ("/api/folders/", server.folders),
            ("/api/datasources/uid/", server.data_sources),
            ("/api/v1/provisioning/alert-rules/", server.alert_rules),
        ):
            if path.startswith(prefix):
                found = kept.get(path.removeprefix(prefix))
                return (200, found) if found else (404, {"message": "not found"})
        board = server.dashboards.get(path.removeprefix("/api/dashboards/uid/"))
        return (200, {"dashboard": board, "meta": {}}) if board else (404, {"message": "Dashboard not found"})

    def _post(self) -> Answer:
        taken: dict[str, Callable[[dict[str, Any]], Answer]] = {
            "/api/folders": self.server.put_folder,
            "/api/datasources": self.server.put_data_source,
            "/api/dashboards/db": self.server.put_dashboard,
            "/api/v1/provisioning/alert-rules": self.server.put_alert_rule,
            "/api/annotations": self.server.put_annotation,
        }
        if self.path not in taken:
            return 404, {"message": f"no such route {self.path}"}
        self.server.writes.append(self.path)
        return taken[self.path](self._body())

    def _put(self) -> Answer:
        path, uid = self.path.rsplit("/", 1)
        kept = {
            "/api/folders": self.server.folders,
            "/api/datasources/uid": self.server.data_sources,
            "/api/v1/provisioning/alert-rules": self.server.alert_rules,
        }.get(path, {})
        if uid not in kept:
            return 404, {"message": "not found"}
        self.server.writes.append(self.path)
        kept[uid] |= self._body()
        return 200, kept[uid]

    def _body(self) -> dict[str, Any]:
        body: dict[str, Any] = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))))
        return body

    def _answer(self, ask: Callable[[], Answer]) -> None:
        basic = b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        known = {f"Bearer {TOKEN}", f"Basic {basic}"}
        if self.server.broken:
            status, body = 500, {"message": "database is locked"}
        elif self.headers.get("Authorization") not in known:
            status, body = 401, {"message": "Invalid API key"}
        else:
            status, body = ask()
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
