"""Wattgate's server. This docstring is the map.

Three kinds of process (`wattgate up` starts all of them):

    launcher/     holds the listening sockets; starts, restarts, replaces and ends the planes; decides nothing
    gateway/      the data plane, 1 … N workers: the path of a request, and nothing else
    control/      the control plane: engines, adapters, metering, metrics, admin API; never in the path of a request

They meet in wire.py: routing tables go down to the workers, records and token times come up.

The path of a request, in the order of gateway/path.py:

    gateway/connection.py   the seam to uvicorn: a request for inference leaves it here, the rest goes on to app.py
    gateway/guarded.py      cuts off a client that sends too much, is slow, or speaks no HTTP
    gateway/listener.py     what all connections share: bounds, hosts, CORS, TLS, one watch over the slow
    gateway/client.py       the request as it came, and the way of the answer back
    gateway/drive.py        runs the path by its own events: no task, no turn of the loop between event and answer
    gateway/endpoints.py    which paths there are, and the grammar of each
    gateway/visit.py        around all stages: answers what they raise, gives back what is held, writes the record
    gateway/visits.py       the requests that run, by id
    gateway/auth.py         API key → tenant, models, limits
    gateway/budgets.py      tenants over their budget: a header, or 429
    gateway/limits.py       a part of the key's limits, or 429
    gateway/grammars/       the deciding fields of the body, parsed once; everything else passes through
    gateway/admission.py    a slot, or a place in the line (line.py), or 429
    gateway/routing/        model id → candidates → one healthy replica
    gateway/attempts.py     the first replica that answers; retry.py says what is worth another, sightings.py tells
    gateway/upstream/       the HTTP/1.1 client to the engine
    gateway/forward.py      the answer as it comes: streamed, whole, or an error that says so
    gateway/passage.py      token events that pass unread, told by their bytes; the others go through
    gateway/prices.py       a request's provisional joules: its tokens at the last prices
    gateway/grammars/event_watch.py  token times and usage, without parsing every event
    gateway/records.py      one record, and the times of its tokens, in the next batch

What becomes of a record, in the order of control/metering.py:

    control/bus.py          takes the batch; acknowledges it once it is in the ledger
    ledger/                 durable rows and their hourly sums, written by a thread of their own
    arrivals.py             its token times as arrays
    telemetry/traffic.py    counters and histograms, many records at a time
    energy/accountant.py    meter readings and token times → joules of each request; attribution/ holds the methods
    carbon/                 joules → grams and money, by the rates of the moment
    control/budgets.py      what each tenant has spent; tells the workers who is over
    efficiency/sampler.py   every second: the six metrics and their companions; report.py makes the table
    telemetry/exporter.py   /metrics, from the catalogue in telemetry/metrics.py
    control/live/           the page at the control port's `/`, and the figures that it shows
    control/runs.py         load runs that were announced; admin_runs.py is their API

What `wattgate reload` does, and in which order: docs/operations.md; cli/reload.py asks, launcher/family.py does it.

Who starts an engine:

    control/supervisor.py   keeps every replica as the configuration wants it; control/life.py is one engine's life
    control/health.py       one health state a replica: breaker.py judges, witness.py knows what workers saw
    engines/                what each make needs (engine.py is the contract), and launchers/ for where it runs
    engines/keeper.py       ends an engine's whole process tree when its time has come
    control/occupancy.py    knows when nobody uses an engine any more that is to end
    models/                 facts of checkpoints and adapters, and the rules that refuse early
    control/adapters.py     keeps adapters loaded wherever they can be

To add a …

    engine kind         engines/KIND.py, a line in engines/__init__.py                    contract: engines/engine.py
    engine launcher     engines/launchers/KIND.py, a line in its __init__.py              launchers/launcher.py
    routing policy      gateway/routing/NAME.py, a line in its __init__.py and in PolicyName  routing/policy.py
    energy meter        energy/KIND.py, a line in energy/__init__.py                      energy/meter.py
    carbon source       carbon/NAME.py, a line in its __init__.py, fields in config/carbon.py  carbon/source.py
    efficiency measure  a function and a line in efficiency/{paper,companions,utilization}.py  efficiency/figure.py
    model family        an entry in models/families.py                                    models/architecture.py
    ledger column       ledger/tables.py and a migration in ledger/migrations/            docs/ledger.md
    attribution method  energy/attribution/NAME.py, a line in its __init__.py             attribution/attribution.py
    endpoint            a line in gateway/endpoints.py
    grammar             gateway/grammars/NAME.py, a line in its __init__.py               grammars/grammar.py
    rule of models      a function and a line in models/rules.py
    metric              a line in telemetry/{metrics,energy_metrics,efficiency_metrics}.py, then `make docs`
    setting             a field in config/, then `make docs`
    command             cli/NAME.py, a line in cli/__init__.py

Imports point downwards: cli, launcher, then gateway and control, then efficiency, ledger, carbon, then engines, energy,
telemetry, then accounts, fleet, models, wire, config, errors, clock, units, console. `make arch` proves it.
"""
