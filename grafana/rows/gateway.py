"""The gateway itself: what it adds, whom it lets in, what it loses, how it fares."""

from __future__ import annotations

from typing import Final

from grafana.panels import Lines, Panel, Stat
from grafana.queries import gateway
from grafana.rows.row import Row

__all__ = ["GATEWAY", "LOAD"]

_QUIET: Final = "nothing of the kind has happened since the control plane started."
_NO_TRAFFIC: Final = "no request ended in this window."

GATEWAY: Final = Row(
    title="The gateway",
    panels=(
        Panel(
            title="What the gateway adds",
            shows="Time in the gateway itself, without the engine and without waiting for admission.",
            no_data=_NO_TRAFFIC,
            unit="s",
            drawing=Lines(),
            queries=(gateway.overhead(0.5), gateway.overhead(0.99)),
        ),
        Panel(
            title="Wait for admission",
            shows="Of requests that were sent to an engine or gave up waiting.",
            no_data=_NO_TRAFFIC,
            unit="s",
            drawing=Lines(),
            queries=(gateway.queue_time(0.5), gateway.queue_time(0.95)),
        ),
        Panel(
            title="Waiting and in flight",
            shows="Requests that wait for admission, and those at each engine.",
            no_data="the control plane is not scraped.",
            unit="short",
            drawing=Lines(),
            queries=(gateway.queue_depth(), gateway.in_flight()),
        ),
        Panel(
            title="Outcomes",
            shows="How requests end, of all kinds.",
            no_data=_NO_TRAFFIC,
            unit="reqps",
            drawing=Lines(stacked=True),
            queries=(gateway.requests_by_outcome(),),
        ),
        Panel(
            title="Refused for load",
            shows="By admission, or by a limit of the key.",
            no_data=_QUIET,
            unit="reqps",
            drawing=Lines(),
            queries=(gateway.admissions_refused(),),
        ),
        Panel(
            title="Retries",
            shows="Attempts at another replica, after one that failed before its first byte.",
            no_data=_QUIET,
            unit="reqps",
            drawing=Lines(),
            queries=(gateway.retries(),),
        ),
        Panel(
            title="Clients that left",
            shows="By when they left: queued, before the first token, or streaming.",
            no_data=_QUIET,
            unit="reqps",
            drawing=Lines(),
            queries=(gateway.cancelled(),),
        ),
        Panel(
            title="Tokens not written for them",
            shows="Output tokens that cancelled requests allowed and were not written: at most what leaving saved.",
            no_data=_QUIET,
            unit="suffix: tok/s",
            drawing=Lines(),
            queries=(gateway.spared_tokens(),),
        ),
        Panel(
            title="Event loops",
            shows="How late they are: what everything in that process waits for.",
            no_data="the control plane is not scraped.",
            unit="s",
            drawing=Lines(),
            queries=(gateway.loop_lag(0.99),),
        ),
        Panel(
            title="Workers",
            shows="1 while the worker is connected to the control plane.",
            no_data="the control plane is not scraped.",
            unit="short",
            drawing=Lines(maximum=1),
            queries=(gateway.workers_up(),),
        ),
        Panel(
            title="Series",
            shows="In the exposition, and how long it takes to make.",
            no_data="the control plane is not scraped.",
            unit="short",
            drawing=Lines(),
            queries=(gateway.series(), gateway.scrape_seconds()),
        ),
        Panel(
            title="Lost records",
            shows="Usage records that never came into counters or into the ledger, over the time range. Should be 0.",
            no_data="the control plane is not scraped.",
            unit="short",
            drawing=Stat(),
            queries=(gateway.lost_records(),),
        ),
    ),
)

LOAD: Final = Row(
    title="Load runs",
    panels=(
        Panel(
            title="Load runs under way",
            shows="Runs that a load generator announced; GET /api/runs of the control port tells which.",
            no_data="the control plane is not scraped.",
            unit="short",
            drawing=Lines(),
            queries=(gateway.load_runs(),),
            width=24,
            height=5,
        ),
    ),
)
