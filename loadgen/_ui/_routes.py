"""What Locust's page asks for: the tabs, their figures, a run's files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from flask import Blueprint, Response, jsonify, make_response, request, send_from_directory

from loadgen._files import REQUESTS, SUMMARY
from loadgen._report_html import REPORT
from loadgen._ui._tables import TABS

__all__ = ["add_routes"]

_PATH: Final = "load"
_FILES: Final = {SUMMARY: "summary", REQUESTS: "requests, one a line", REPORT: "report, with plots"}
"""Of the last run's folder; no other name is served."""
_STATISTICS: Final = "locust.request_stats"
"""Locust's own view, which its page asks every two seconds while a test runs."""

Figures = Callable[[], dict[str, Any]]


def add_routes(environment: Any, *, figures: Figures, statistics: Figures, folder: Callable[[], Path | None]) -> None:
    """Tabs onto Locust's page, and what fills them. Behind its login, where it has one."""
    web = environment.web_ui
    routes = Blueprint("load", __name__, url_prefix=f"{environment.parsed_options.web_base_path}/{_PATH}")

    @routes.get("/figures")
    @web.auth_required_if_enabled  # type: ignore[untyped-decorator]
    def _figures() -> Response:
        return jsonify(figures())

    @routes.get("/files/<name>")
    @web.auth_required_if_enabled  # type: ignore[untyped-decorator]
    def _file(name: str) -> Response:
        return _send(folder(), name)

    @web.app.after_request  # type: ignore[untyped-decorator]
    def _extend(response: Response) -> Response:
        if request.endpoint != _STATISTICS or response.status_code != 200 or not response.is_json:
            return response
        # A new one: Locust keeps its own and gives it out again.
        return jsonify({**(response.get_json() or {}), **statistics()})

    web.app.register_blueprint(routes)
    web.template_args |= _template_arguments()


def _template_arguments() -> dict[str, Any]:
    """What the page knows from the beginning."""
    return {
        "extended_tabs": [{"title": tab.title, "key": tab.key} for tab in TABS],
        "extended_tables": [
            {"key": tab.key, "structure": [{"key": column.key, "title": column.title} for column in tab.columns]}
            for tab in TABS
        ],
        "extended_csv_files": [
            {"href": f"./{_PATH}/files/{name}", "title": f"Last run: {name} ({what})"} for name, what in _FILES.items()
        ],
    }


def _send(folder: Path | None, name: str) -> Response:
    if name not in _FILES:
        return make_response(f"Only these files are served: {', '.join(_FILES)}.\n", 404)
    if folder is None or not (folder / name).is_file():
        return make_response("There are no results yet: they are written when a run ends.\n", 404)
    return send_from_directory(folder, name, as_attachment=name != REPORT, max_age=0)
