"""What an engine does inside: batch, queue, cache, failures."""

from __future__ import annotations

from typing import Final

from grafana.panels import Lines, Panel, Stat
from grafana.queries import engines
from grafana.rows.row import Row

__all__ = ["ENGINE"]

_SILENT: Final = "no engine of the selection tells it."

ENGINE: Final = Row(
    title="Inside the engines",
    panels=(
        Panel(
            title="Running and waiting",
            shows="Requests in the batch and requests that wait inside the engine.",
            no_data=_SILENT,
            unit="short",
            drawing=Lines(),
            queries=(engines.running(), engines.waiting()),
        ),
        Panel(
            title="KV cache in use",
            shows="Near 100 % requests are pushed out of the batch and computed again.",
            no_data=_SILENT,
            unit="percentunit",
            drawing=Lines(maximum=1),
            queries=(engines.kv_usage(),),
        ),
        Panel(
            title="Preemptions",
            shows="Requests pushed out of the batch for want of KV cache; each is computed again.",
            no_data=_SILENT,
            unit="reqps",
            drawing=Lines(),
            queries=(engines.preemptions(),),
        ),
        Panel(
            title="Prefix cache hits",
            shows="Prompt tokens found in the prefix cache, of those looked up.",
            no_data="no prompt was looked up in this window, or the engine does not tell.",
            unit="percentunit",
            drawing=Lines(maximum=1),
            queries=(engines.prefix_hit_ratio(),),
        ),
        Panel(
            title="Computing",
            shows="Floating-point operations that the served tokens needed, each second, by phase.",
            no_data="nothing was served, or the architecture has no model here.",
            unit="flops",
            drawing=Lines(),
            queries=(engines.flops(),),
        ),
        Panel(
            title="Ended requests, by outcome",
            shows="`ok` and what the service failed.",
            no_data="the selected engines ended no request in this window.",
            unit="reqps",
            drawing=Lines(),
            queries=(engines.failures(),),
        ),
        Panel(
            title="Restarts",
            shows="Times that the engine was started again within the time range.",
            no_data=_SILENT,
            unit="short",
            drawing=Stat(named=True),
            queries=(engines.restarts(),),
            width=24,
            height=4,
        ),
    ),
)
