"""`python -m server.launcher PLAN.json`, as `wattgate up` executes it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from server.console import EXIT_CANNOT_LISTEN, say
from server.launcher.descendants import adopt_orphans, end_all
from server.launcher.desk import Desk
from server.launcher.events import Events
from server.launcher.family import Family, NotReplacedError, Over
from server.launcher.plan import Plan
from server.launcher.sockets import Sockets

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run until told to stop; the exit status is 0 after a stop, 3 if a port is taken, 1 if nothing can be served."""
    arguments = sys.argv[1:] if argv is None else argv
    plan = Plan.read(Path(arguments[0]))
    adopt_orphans()
    try:
        sockets = Sockets(plan)
    except OSError as exc:
        say(str(exc))
        return EXIT_CANNOT_LISTEN
    events = Events()
    family = Family(plan, sockets, events)
    desk = Desk(plan.desk, events, current=lambda: family.plan.path)
    family.start()
    status = _live(family, desk, events)
    sockets.close_gateway()
    family.stop()
    end_all()
    return status


def _live(family: Family, desk: Desk, events: Events) -> int:
    """Until the end; the exit status."""
    try:
        while True:
            family.live_until(lambda: desk.wanted is not None or events.reload_wanted)
            if desk.wanted is not None:
                _go_over(family, desk, desk.wanted)
            else:
                events.reload_wanted = False
                family.run_aside(family.plan.reload_argv)
    except Over as over:
        return over.status


def _go_over(family: Family, desk: Desk, wanted: Path) -> None:
    def tell(message: str) -> None:
        say(message)
        desk.say(message)

    try:
        family.replace(Plan.read(wanted), tell)
    except (OSError, ValueError, KeyError, NotReplacedError) as exc:
        tell(str(exc))
        desk.finish(1)
    else:
        desk.finish(0)


if __name__ == "__main__":
    sys.exit(main())
