"""What must not stay broken: engines, workers, meters, the ledger, and the metrics themselves."""

from __future__ import annotations

from typing import Final

from grafana.queries import rules as promql
from grafana.rules.rule import Alert, Group

__all__ = ["HEALTH"]

_LAG_S: Final = 0.1
_LEAST_CONFIDENCE: Final = 0.5

HEALTH: Final = Group(
    name="wattgate.health",
    rules=(
        Alert(
            name="WattgateDown",
            expr=promql.unreachable(),
            lasts="2m",
            severity="page",
            summary="Prometheus cannot read the control plane at {{ $labels.instance }}",
            advice="Workers serve on without it, but nothing is measured and no engine is restarted. See its log.",
        ),
        Alert(
            name="WattgateNothingServes",
            expr=promql.not_serving(),
            lasts="5m",
            severity="page",
            summary="No replica serves {{ $labels.model }}:{{ $labels.variant }}",
            advice="`wattgate status` says why; the engine's log lies in `state_dir`/logs.",
        ),
        Alert(
            name="WattgateEngineDown",
            expr=promql.down(),
            lasts="5m",
            severity="ticket",
            summary="Engine {{ $labels.engine }} is {{ $labels.state }}",
            advice="It is started again by itself unless its problem cannot pass; `wattgate status` names the problem.",
        ),
        Alert(
            name="WattgateWorkerDown",
            expr=promql.never_zero("wattgate_worker_up"),
            lasts="2m",
            severity="page",
            summary="Worker {{ $labels.worker }} of {{ $labels.instance }} is not connected",
            advice="The launcher restarts workers that end; one that hangs shows in the log of `wattgate up`.",
        ),
        Alert(
            name="WattgateMeterDown",
            expr=promql.never_zero("wattgate_meter_up"),
            lasts="2m",
            severity="ticket",
            summary="Meter {{ $labels.meter }} of {{ $labels.instance }} cannot be read",
            advice="Joules are unknown until it can; `wattgate meter watch` shows what it says. docs/meters.md helps.",
        ),
        Alert(
            name="WattgateAttributionUncertain",
            expr=promql.below("wattgate_attribution_confidence_ratio", _LEAST_CONFIDENCE),
            lasts="1h",
            severity="ticket",
            summary="Joules of single requests are a rough guess ({{ $labels.method }}) at {{ $labels.instance }}",
            advice="Sums of engines still hold. docs/energy.md tells what each method needs to see.",
        ),
        Alert(
            name="WattgateQueueGrows",
            expr=promql.grows("wattgate_queue_depth", "10m"),
            lasts="5m",
            severity="page",
            summary="Requests wait at {{ $labels.instance }}, ever more of them",
            advice="Add replicas, lower limits of keys, or let clients back off: 429 tells them when.",
        ),
        Alert(
            name="WattgateEventLoopLate",
            expr=promql.late(0.99, "5m", _LAG_S),
            lasts="10m",
            severity="ticket",
            summary="{{ $labels.process }} of {{ $labels.instance }} is late by more than 0.1 s",
            advice="It has too little CPU: give it a core of its own, or more workers.",
        ),
        Alert(
            name="WattgateSeriesLeftOut",
            expr=promql.any_of("wattgate_series_left_out"),
            lasts="15m",
            severity="ticket",
            summary="{{ $value }} series did not fit into the budget of {{ $labels.instance }}",
            advice="Raise telemetry.max_series, or allow fewer adapters and tenants on metrics.",
        ),
        Alert(
            name="WattgateRecordsLost",
            expr=promql.rise(("wattgate_records_dropped_total", "wattgate_ledger_lost_total"), "15m"),
            lasts="0m",
            severity="ticket",
            summary="Usage records were lost at {{ $labels.instance }}",
            advice="Counters and bills lack them. See whether the control plane or the ledger was down for long.",
        ),
        Alert(
            name="WattgateLedgerDown",
            expr=promql.never_zero("wattgate_ledger_up"),
            lasts="5m",
            severity="ticket",
            summary="The ledger of {{ $labels.instance }} cannot be written",
            advice="Records wait within a bound, then the oldest are lost. The log names the database's answer.",
        ),
    ),
)
