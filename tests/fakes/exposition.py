"""A gateway's /metrics as Prometheus sees it, without a gateway: counters grow by a fixed step each scrape."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from server.telemetry.metric import Kind, Metric
from server.telemetry.metrics import CATALOGUE

__all__ = ["CONFIGURATIONS", "Configuration", "Exposition"]

_STATES = ("pending", "starting", "ready", "unhealthy", "backoff", "failed", "stopped")
_NOWHERE = dict.fromkeys(("engine", "model", "variant", "precision", "adapter"), "none")
_METER = {"device": "cpu", "scope": "estimated"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Configuration:
    """What one engine is, and what happens on it between two scrapes."""

    engine: str
    variant: str
    adapter: str = "none"
    state: str = "ready"
    requests: int = 4
    failures: int = 0
    tokens: int = 100
    active_joules: float = 30.0
    size_bytes: int = 8_000_000

    @property
    def labels(self) -> dict[str, str]:
        return {"engine": self.engine, "model": "demo", "variant": self.variant, "precision": self.variant}


CONFIGURATIONS = (
    Configuration(engine="demo-bf16", variant="bf16"),
    Configuration(
        engine="demo-int4", variant="int4", adapter="json", failures=1, active_joules=50.0, size_bytes=4_000_000
    ),
    Configuration(engine="demo-idle", variant="idle", state="backoff", requests=0, tokens=0, active_joules=0.0),
)


class Exposition:
    """A context manager: serves the text format on `target` (host:port)."""

    def __init__(self, configurations: tuple[Configuration, ...] = CONFIGURATIONS) -> None:
        self._configurations = configurations
        self._scrapes = 0

    def __enter__(self) -> Self:
        exposition = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                exposition._scrapes += 1
                body = exposition.text(exposition._scrapes).encode()
                self.send_response(200)
                self.send_header("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                with contextlib.suppress(BrokenPipeError):  # a Prometheus that stops leaves its last scrape
                    self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                """Scrapes are not worth a line."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})
        self._thread.start()
        self.target = f"127.0.0.1:{self._server.server_address[1]}"
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def text(self, scrapes: int) -> str:
        """The exposition after so many scrapes."""
        lines = [line for item in self._configurations for line in _of_engine(item, scrapes)]
        active = sum(item.active_joules for item in self._configurations)
        # A request that is refused before it is routed belongs to no configuration.
        lines.append(_line("wattgate_requests_total", scrapes, **_NOWHERE, outcome="rejected"))
        lines.append(
            _line("wattgate_energy_joules_total", scrapes * 20.0, **_METER, **_NOWHERE, account="other", phase="none")
        )
        lines.append(_line("wattgate_device_energy_joules_total", scrapes * (active + 20.0), **_METER))
        told = {line.partition("{")[0] for line in lines}
        rest = [metric for name, metric in CATALOGUE.items() if not any(one.startswith(name) for one in told)]
        for metric in rest:
            for item in self._configurations if "engine" in metric.labels else self._configurations[:1]:
                lines.extend(_anything(metric, item, scrapes))
        return "\n".join(lines) + "\n"


def _of_engine(item: Configuration, scrapes: int) -> Iterator[str]:
    traffic = item.labels | {"adapter": item.adapter}
    yield _line("wattgate_requests_total", scrapes * item.requests, **traffic, outcome="ok")
    if item.failures:
        yield _line("wattgate_requests_total", scrapes * item.failures, **traffic, outcome="upstream_error")
    yield _line("wattgate_tokens_total", scrapes * item.tokens, **traffic, kind="output")
    yield _line("wattgate_tokens_total", scrapes * item.tokens * 3, **traffic, kind="prompt")
    yield _line(
        "wattgate_energy_joules_total",
        scrapes * item.active_joules,
        **_METER,
        **traffic,
        account="active",
        phase="decode",
    )
    for name in ("time_to_first_token", "inter_token_latency", "time_per_output_token"):
        yield from _histogram(f"wattgate_{name}_seconds", scrapes * item.tokens, traffic)
    yield _line(
        "wattgate_engine_info",
        1,
        **item.labels,
        quantization="none",
        dtype="bfloat16",
        engine_version="0.32.0",
        device="cpu",
    )
    for state in _STATES:
        yield _line("wattgate_engine_state", int(state == item.state), **item.labels, state=state)
    yield _line("wattgate_memory_bytes", 2.5e9, **item.labels, kind="resident")
    yield _line("wattgate_memory_bytes", item.size_bytes, **item.labels, kind="weights")
    yield _line("wattgate_model_parameters", 4_200_000, **item.labels)
    yield _line("wattgate_model_size_bytes", item.size_bytes, **item.labels)
    yield _line("wattgate_model_bytes_per_weight", item.size_bytes / 4_200_000, **item.labels)


def _anything(metric: Metric, item: Configuration, scrapes: int) -> Iterator[str]:
    """A metric of which nobody expects a certain value: it grows if it may, and stands still at a half if not."""
    known = item.labels | {"adapter": item.adapter, **_METER, "process": "worker-0"}
    labels = {label: known.get(label, "some") for label in metric.labels}
    if metric.kind is Kind.HISTOGRAM:
        yield from _histogram(metric.name, 4 * scrapes, labels)
    else:
        value = {Kind.COUNTER: 2.0 * scrapes, Kind.GAUGE: 0.5, Kind.INFO: 1.0}[metric.kind]
        yield _line(metric.name, value, **labels)


def _histogram(name: str, count: int, labels: dict[str, str]) -> Iterator[str]:
    """Every observation lies between 10 and 20 ms."""
    for bound, below in (("0.01", 0), ("0.02", count), ("+Inf", count)):
        yield _line(f"{name}_bucket", below, **labels, le=bound)
    yield _line(f"{name}_sum", count * 0.015, **labels)
    yield _line(f"{name}_count", count, **labels)


def _line(name: str, value: float, **labels: str) -> str:
    shown = ",".join(f'{key}="{label}"' for key, label in labels.items())
    return f"{name}{{{shown}}} {value}"
