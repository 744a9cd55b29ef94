"""Tabs in Locust's page: a run while it goes, and its results.

_tabs.py     which run is shown: the one that goes, else the last
_so_far.py   figures of the records that have come; _joules.py  joules so far, and by model
_row.py      one model's line, of a running or of a finished run; _tables.py  the tabs' columns
_routes.py   what the page asks for
"""
