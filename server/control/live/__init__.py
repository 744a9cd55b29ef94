"""The live page of the control port: what holds now and the last fifteen minutes, without Prometheus and Grafana.

frame.py     one second: rates of what was served, watts of what was accounted
history.py   the last fifteen minutes of it
feed.py      makes frames and tables, and tells whoever listens
engine_log.py  the last lines of an engine's log
playground.py  one prompt to the gateway, its answer as it comes
routes.py    the page, its files, server-sent events
static/      what the browser gets; vendor/ holds uPlot as its package ships it (`make page-vendor`)
"""

from __future__ import annotations

from server.control.live.feed import Feed, FeedSources
from server.control.live.playground import Playground
from server.control.live.routes import add_live

__all__ = ["Feed", "FeedSources", "Playground", "add_live"]
