"""Offline: requests and meter readings from files, through the same accountant.

lines.py          one JSON object a line, and a count of what is odd
requests_file.py  requests, as the records that a gateway would have written
meter_file.py     readings, and the windows that they make
feed.py           what the accountant hears and reads meanwhile
run.py            plays them: once to learn, once to share out
"""

from server.energy.replay.run import Replayed, replay

__all__ = ["Replayed", "replay"]
