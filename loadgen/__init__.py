"""Load on the gateway, and what its clients feel.

The path of a run, file by file:

    locustfile.py    what `locust -f loadgen/` finds: the options and the one user class
    _session.py      Locust's events: prepare, begin, end; master and workers
    _plan.py         the options, checked            _gateway.py  what is served, how it counts tokens
    _mix.py          which model a request asks for  _prompts.py  what it says
    _arrivals/       when it is sent (open loop)     _run.py      the next request, until the run ends
    _client.py       sends one, reads its stream     _stream.py   finds tokens, usage, errors in the stream
    _record.py       one request as it was felt      _statistics.py, _summary.py  percentiles, figures a model
    _energy.py       joules from the control API     _harvest.py  all processes' records, provenance
    _conclude.py     the end of a run                _report.py   summary.json, requests.jsonl, the table
    _demo/           `make demo`: engines, one load after another, one table

Locust executes every file under `-f loadgen/` whose name has no leading underscore: `locustfile.py` is the only one.

To add an arrival process: one file in `_arrivals/` with the one method of `ArrivalProcess`, one line in the table
`ARRIVALS` of `_arrivals/__init__.py`. `--arrivals` and the contract tests then know it.
"""
