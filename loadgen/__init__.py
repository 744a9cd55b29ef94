"""Load on the gateway, and what its clients feel.

The path of a run, file by file:

    locustfile.py    what `locust -f loadgen/` finds: the options and the one user class
    _session.py      Locust's events: prepare, begin, end         _options.py  the options, _plan.py  checked
    _gateway.py      what is served; _calibrate.py  how it counts tokens; _mix.py  which models are asked for
    _workers.py      a master's workers, _worker.py  a worker, _shared.py  what the one tells the other
    _sender.py       what one process sends, in open or in closed loop
    _run.py          the next request, until the run ends
    _workloads/      what it asks for; _prompts.py  words
    _arrivals/       when it is due (open loop); _dispatch.py sends it then, whatever the answers do
    _client.py       sends one; _transport.py, _connection.py  sockets whose reads bear the kernel's receive time
    _answer.py       what came, line by line; _stream.py  tokens, usage, errors in it; _measure.py makes the record
    _record.py       one request as it was felt; _slo.py  whether that was good
    _harvest.py      all processes' records; _histogram.py, _statistics.py, _summary.py, _timeseries.py  figures of them
    _validity.py     which of the figures may be believed
    _server_watch.py beside the run: _announce.py, _energy.py, _energy_join.py, _server_metrics.py, by _control.py
    _conclude.py     the end of a run: _files.py, _report.py, _report_html/, with _provenance.py
    _whole_file.py   files that are whole, or as they were
    _terminal.py     a running test in the terminal; _locust.py  what Locust's own page is told
    _ui/             tabs in that page: the run while it goes, its results

More than one run:

    _saturation.py   `--find-saturation`: run after run; _search.py says at which level
    _compare/        `wattgate compare`: configurations in interleaved blocks, a verdict
    _demo/           `make demo`: engines, one load after another, one table

Locust executes every file under `-f loadgen/` whose name has no leading underscore: `locustfile.py` is the only one.

To add a …

    arrival process  _arrivals/_NAME.py, a line in its __init__.py          contract: _arrivals/_process.py
    workload         _workloads/_NAME.py, a line in its __init__.py         contract: _workloads/_workload.py
    trace format     a reader and a line in _workloads/_trace_formats.py
    option           _options.py, and its field in _plan.py
"""
