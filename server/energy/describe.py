"""Puts together all that is known of a window."""

from __future__ import annotations

from server.energy.attribution import EngineUse, Window
from server.energy.columns import Integers
from server.energy.counted import Counted
from server.energy.devices import Device, OpenWindow, is_up
from server.energy.foreign import ForeignTokens
from server.energy.presence import Presence
from server.energy.uses import uses_in
from server.energy.work import WorkBook
from server.fleet import Replica
from server.units import Microjoules

__all__ = ["describe"]

_NOTHING = Counted(None, None)


def describe(device: Device, opened: OpenWindow, works: WorkBook, presence: Presence) -> tuple[Window, Integers]:
    """The window, and which rows of the work book its requests are. Once for each, in the order of time."""
    places = {replica.name: place for place, replica in enumerate(opened.replicas)}
    uses = uses_in(works, opened.start, opened.end, places)
    busy = presence.engines_seen(opened.start, opened.end)
    engines = []
    for replica, ours in zip(opened.replicas, uses.output_millitokens.tolist(), strict=True):
        counted = opened.counted.get(replica.name, _NOTHING)
        engines.append(
            EngineUse(
                engine=replica.name,
                up=is_up(replica),
                cpu_us=opened.cpu_us.get(replica.name, 0),
                foreign_millitokens=_foreign(device, replica, ours),
                busy=replica.name in busy,
                counted_prompt_tokens=counted.computed_prompt_tokens,
                counted_output_tokens=counted.output_tokens,
            )
        )
    window = Window(
        device=device.name,
        scope=device.scope,
        start=opened.start,
        end=opened.end,
        energy=opened.energy or Microjoules(0),
        baseline=opened.baseline,
        engines=engines,
        requests=uses.requests,
        tokens=uses.tokens,
        other_cpu_us=opened.other_cpu_us,
    )
    return window, uses.rows


def _foreign(device: Device, replica: Replica, ours: int) -> int:
    tokens = device.foreign.setdefault(replica.name, ForeignTokens())
    return tokens.in_window(replica.gauges.output_tokens_total if replica.gauges else None, ours)
