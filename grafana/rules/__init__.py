"""Rules of Prometheus: what is recorded, and when somebody is told. One table; the key is the generated file's name.

    rule.py        a recording, an alert, a group          objectives.py  promises, and how fast they are used up
    burn.py        burn rates over several windows         health.py      what must not stay broken

`python -m grafana generate` writes `deploy/prometheus/rules/`; each alert has a test in `deploy/prometheus/tests/`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from grafana.rules.health import HEALTH
from grafana.rules.objectives import OBJECTIVES
from grafana.rules.rule import Alert, Group, Recording

__all__ = ["RULES", "Alert", "Group", "Recording"]

RULES: Final[Mapping[str, Sequence[Group]]] = {
    "objectives": OBJECTIVES,
    "health": (HEALTH,),
}
