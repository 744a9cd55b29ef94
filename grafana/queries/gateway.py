"""PromQL of the gateway itself: what it adds, admits, refuses and loses. The variables do not filter it."""

from __future__ import annotations

from grafana.queries.query import RATE_WINDOW, Query, by_label

__all__ = [
    "admissions_refused",
    "cancelled",
    "in_flight",
    "load_runs",
    "loop_lag",
    "lost_records",
    "memory_of_processes",
    "overhead",
    "queue_depth",
    "queue_time",
    "requests_by_outcome",
    "retries",
    "scrape_seconds",
    "series",
    "spared_tokens",
    "total_in_flight",
    "total_output_tokens",
    "total_requests",
    "workers_up",
]


def overhead(q: float) -> Query:
    """The q-quantile of what the gateway itself added; seconds."""
    return _quantile("wattgate_overhead_seconds", q)


def queue_time(q: float) -> Query:
    """The q-quantile of the wait for admission; seconds."""
    return _quantile("wattgate_queue_time_seconds", q)


def loop_lag(q: float) -> Query:
    """How late event loops are, by process; seconds."""
    rate = f"rate(wattgate_event_loop_lag_seconds_bucket[{RATE_WINDOW}])"
    expr = f"histogram_quantile({q}, sum by (le, process) ({rate}))"
    return Query(expr=expr, legend=f"{{{{process}}}} p{q * 100:g}")


def requests_by_outcome() -> Query:
    """Requests that ended, a second."""
    return by_label(f"sum by (outcome) (rate(wattgate_requests_total[{RATE_WINDOW}]))", "outcome")


def total_requests() -> Query:
    """Requests that ended, a second."""
    return Query(expr=f"sum(rate(wattgate_requests_total[{RATE_WINDOW}]))", legend="all")


def total_output_tokens() -> Query:
    """Output tokens a second."""
    return Query(expr=f'sum(rate(wattgate_tokens_total{{kind="output"}}[{RATE_WINDOW}]))', legend="all")


def in_flight() -> Query:
    """Requests at engines."""
    return by_label("sum by (engine) (wattgate_requests_in_flight)", "engine")


def total_in_flight() -> Query:
    """Requests at any engine."""
    return Query(expr="sum(wattgate_requests_in_flight)", legend="in flight")


def queue_depth() -> Query:
    """Requests that wait for admission."""
    return Query(expr="sum(wattgate_queue_depth)", legend="waiting")


def admissions_refused() -> Query:
    """Requests refused for load, a second, by reason."""
    return by_label(f"sum by (reason) (rate(wattgate_admission_rejections_total[{RATE_WINDOW}]))", "reason")


def retries() -> Query:
    """Attempts at another replica, a second, by reason."""
    return by_label(f"sum by (reason) (rate(wattgate_retries_total[{RATE_WINDOW}]))", "reason")


def cancelled() -> Query:
    """Requests whose client left, a second, by when."""
    return by_label(f"sum by (when) (rate(wattgate_cancelled_total[{RATE_WINDOW}]))", "when")


def spared_tokens() -> Query:
    """Tokens that were not written because clients had left, a second."""
    return by_label(f"sum by (when) (rate(wattgate_cancelled_tokens_spared_total[{RATE_WINDOW}]))", "when")


def lost_records() -> Query:
    """Records that workers gave up, and that never came into the ledger, in the range that is shown."""
    lost = "increase(wattgate_records_dropped_total[$__range])", "increase(wattgate_ledger_lost_total[$__range])"
    return Query(expr=f"sum({lost[0]}) + (sum({lost[1]}) or vector(0))", legend="records")


def workers_up() -> Query:
    """1 while the worker is connected."""
    return by_label("wattgate_worker_up", "instance", "worker")


def series() -> Query:
    """Series in the exposition."""
    return by_label("wattgate_series", "instance")


def scrape_seconds() -> Query:
    """How long an exposition takes to make."""
    return by_label("wattgate_scrape_duration_seconds", "instance")


def memory_of_processes() -> Query:
    """Resident memory of the control plane; bytes."""
    return by_label('process_resident_memory_bytes{job="wattgate"}', "instance")


def load_runs() -> Query:
    """Load runs that were announced and go on."""
    return Query(expr="sum(wattgate_load_runs_active)", legend="load runs")


def _quantile(histogram: str, q: float) -> Query:
    rate = f"rate({histogram}_bucket[{RATE_WINDOW}])"
    return Query(expr=f"histogram_quantile({q}, sum by (le) ({rate}))", legend=f"p{q * 100:g}")
