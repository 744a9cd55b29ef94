"""Publishes: batches of records become Prometheus metrics, a summary, a request log.

metrics.py        the catalogue: every name, label, unit, bucket
labels.py         caps on names
traffic.py        takes batches  (kinds.py groups · observations.py: definitions · histogram.py · workers.py · spans.py)
sources.py        what the exposition reads
families.py       values → metric families
exporter.py       all families within the budget of series
text.py           metric families → the body of /metrics
summary.py        one row a configuration
log.py            one line a request
"""

from server.telemetry.exporter import Exposition
from server.telemetry.labels import LabelCap, LabelCaps
from server.telemetry.log import RequestLog
from server.telemetry.metric import Metric
from server.telemetry.metrics import CATALOGUE
from server.telemetry.sources import AdapterLoad, EnergyFigures, Sources
from server.telemetry.summary import Row, summarize
from server.telemetry.traffic import Traffic, TrafficNow

__all__ = [
    "CATALOGUE",
    "AdapterLoad",
    "EnergyFigures",
    "Exposition",
    "LabelCap",
    "LabelCaps",
    "Metric",
    "RequestLog",
    "Row",
    "Sources",
    "Traffic",
    "TrafficNow",
    "summarize",
]
