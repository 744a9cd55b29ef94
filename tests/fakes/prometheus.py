"""Debian's real Prometheus as a fixture, and a dashboard's queries as it would get them."""

from __future__ import annotations

import json
import re
import subprocess
import tempfile
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import httpx
import psutil
import yaml

__all__ = ["Prometheus", "grafana_queries", "has_number"]

_BINARY = "prometheus"
_READY_LINE = "Server is ready to receive web requests"
_START_TIMEOUT_S = 30.0
_STOP_TIMEOUT_S = 10.0
_REQUEST_TIMEOUT_S = 10.0
_POLL_S = 0.1


class Prometheus:
    """A context manager: `with Prometheus(targets=["127.0.0.1:8081"]) as prometheus: prometheus.query("up")`.

    Scrapes `targets` (host:port, path /metrics) every `scrape_interval`; its data live in a temporary folder. It
    listens on a port that the operating system picks, so any number of them run side by side. The first scrape comes
    about 5 s after the start: Prometheus gathers its targets for so long, and no option shortens that.
    """

    def __init__(self, *, targets: Sequence[str], scrape_interval: str = "1s", job: str = "wattgate") -> None:
        self._config = {
            "global": {"scrape_interval": scrape_interval, "scrape_timeout": scrape_interval},
            "scrape_configs": [{"job_name": job, "static_configs": [{"targets": list(targets)}]}],
        }
        self._folder = tempfile.TemporaryDirectory(prefix="prometheus-")
        self._ready = threading.Event()
        self._log: deque[str] = deque(maxlen=40)

    def __enter__(self) -> Self:
        folder = Path(self._folder.name)
        config = folder / "prometheus.yml"
        config.write_text(yaml.safe_dump(self._config), encoding="utf-8")
        self._process = subprocess.Popen(
            [
                _BINARY,
                f"--config.file={config}",
                f"--storage.tsdb.path={folder / 'data'}",
                "--web.listen-address=127.0.0.1:0",
                "--scrape.discovery-reload-interval=100ms",  # else a second wait of 5 s, see below
                "--enable-feature=exemplar-storage",
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._reader = threading.Thread(target=self._read_log, daemon=True)
        self._reader.start()
        try:
            self.url = self._address()
        except BaseException:
            self.__exit__()
            raise
        self._client = httpx.Client(base_url=self.url, timeout=_REQUEST_TIMEOUT_S)
        return self

    def __exit__(self, *exc_info: object) -> None:
        if hasattr(self, "_client"):
            self._client.close()
        self._process.terminate()
        try:
            self._process.wait(_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join()
        assert self._process.stderr is not None
        self._process.stderr.close()
        self._folder.cleanup()

    def query(self, promql: str, *, at: float | None = None) -> list[dict[str, Any]]:
        """The result vector (or scalar, as one sample) now or at a Unix time; an invalid query is a `ValueError`."""
        parameters: dict[str, Any] = {"query": promql} if at is None else {"query": promql, "time": at}
        data = self._ask("/api/v1/query", parameters)
        if data["resultType"] == "scalar":
            return [{"metric": {}, "value": data["result"]}]
        result: list[dict[str, Any]] = data["result"]
        return result

    def query_range(self, promql: str, *, start: float, end: float, step_s: float) -> list[dict[str, Any]]:
        """The result matrix between two Unix times."""
        parameters = {"query": promql, "start": start, "end": end, "step": step_s}
        result: list[dict[str, Any]] = self._ask("/api/v1/query_range", parameters)["result"]
        return result

    def wait_for(self, promql: str, *, timeout_s: float = 30.0) -> list[dict[str, Any]]:
        """Ask until there is a number; an `AssertionError` says what there was instead when the time is over."""
        deadline = time.monotonic() + timeout_s
        while True:
            result = self.query(promql)
            if has_number(result):
                return result
            if time.monotonic() > deadline:
                problems = self.scrape_problems() or "every target is scraped"
                raise AssertionError(f"{promql} gave {result} for {timeout_s} s; {problems}")
            time.sleep(_POLL_S)

    def scrape_problems(self) -> str:
        """Why targets are not scraped, one a line; empty if all are."""
        targets = self._ask("/api/v1/targets", {})["activeTargets"]
        return "\n".join(f"{target['scrapeUrl']}: {target['lastError']}" for target in targets if target["lastError"])

    def _ask(self, path: str, parameters: Mapping[str, Any]) -> Any:
        answer = self._client.post(path, data=parameters) if parameters else self._client.get(path)
        body = answer.json()
        if body["status"] != "success":
            raise ValueError(f"{body['errorType']}: {body['error']} in {parameters.get('query', path)}")
        return body["data"]

    def _read_log(self) -> None:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            self._log.append(line)
            if _READY_LINE in line:
                self._ready.set()
        self._ready.set()  # the end of the log is the end of the process: nobody need wait any longer

    def _address(self) -> str:
        self._ready.wait(_START_TIMEOUT_S)
        listening = self._listening_ports()
        if not listening:
            raise AssertionError(f"{_BINARY} did not start; its last lines:\n{''.join(self._log)}")
        return f"http://127.0.0.1:{listening[0]}"

    def _listening_ports(self) -> list[int]:
        if self._process.poll() is not None:
            return []
        connections = psutil.Process(self._process.pid).net_connections(kind="tcp")
        return [connection.laddr.port for connection in connections if connection.status == psutil.CONN_LISTEN]


def grafana_queries(
    dashboard_json: str | Mapping[str, Any],
    *,
    rate_interval: str = "4s",
    time_range: str = "1m",
    variables: Mapping[str, str] | None = None,
) -> list[tuple[str, str]]:
    """(panel title, PromQL) of every query, with variables replaced as Grafana does.

    `variables` gives values by name; the others stand for everything, as when nothing is selected. The variables' own
    queries come first, as the PromQL that finds the same labels.
    """
    dashboard = json.loads(dashboard_json) if isinstance(dashboard_json, str) else dashboard_json
    listed = dashboard.get("templating", {}).get("list", [])
    values = {variable["name"]: variable.get("allValue") or ".*" for variable in listed}
    values |= {"__rate_interval": rate_interval, "__range": time_range, "__interval": rate_interval}
    values |= dict(variables or {})
    found = [
        (f"variable {variable['name']}", _label_query(variable["query"]))
        for variable in listed
        if variable["type"] == "query"
    ]
    for panel in _panels(dashboard):
        found.extend((panel["title"], target["expr"]) for target in panel.get("targets", []))
    return [(title, _substitute(expr, values)) for title, expr in found]


def has_number(result: Sequence[Mapping[str, Any]]) -> bool:
    """Whether at least one sample of a result vector is a number; NaN is what dividing by no traffic gives."""
    return any(sample["value"][1] not in {"NaN", "+Inf", "-Inf"} for sample in result)


def _panels(dashboard: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    for panel in dashboard["panels"]:
        if panel["type"] == "row":
            yield from panel.get("panels", [])
        else:
            yield panel


def _label_query(query: str) -> str:
    match = re.fullmatch(r"label_values\((.+), (\w+)\)", query)
    if match is None:
        raise ValueError(f"{query!r} is not of the form label_values(selector, label)")
    return f"group by ({match[2]}) ({match[1]})"


def _substitute(expr: str, values: Mapping[str, str]) -> str:
    def value_of(match: re.Match[str]) -> str:
        name = match["braced"] or match["bare"]
        if name not in values:
            raise ValueError(f"the variable ${name} in {expr!r} is not defined by the dashboard")
        return values[name]

    return re.sub(r"\$\{(?P<braced>\w+)(?::\w+)?\}|\$(?P<bare>\w+)", value_of, expr)
