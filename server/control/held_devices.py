"""Sees on which GPUs engines really run, by the driver's lists of processes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Mapping, Sequence

from server.energy.mapping import device_of, devices_named, exists_here, held_devices
from server.engines.process_tree import tree
from server.errors import MeterError
from server.fleet import Replica

__all__ = ["HeldDevices"]


class HeldDevices:
    """Replicas with the devices that the driver sees their processes on, where it can tell; else as configured."""

    def __init__(
        self,
        lists: Callable[[], Mapping[str, Collection[int]]],
        *,
        tree: Callable[[int], Collection[int]] = tree,
        exists: Callable[[int], bool] = exists_here,
    ) -> None:
        """`lists` gives the processes on each device, as `NvmlMeter.processes` does."""
        self._lists = lists
        self._tree = tree
        self._exists = exists
        self._held: dict[str, tuple[int, str]] = {}

    def look(self, replicas: Sequence[Replica]) -> list[str]:
        """Ask the driver (some ms: in a thread, every few seconds). Returns sentences on what is newly not as set."""
        placed = {replica.name: replica for replica in replicas if replica.pid is not None}
        trees = {name: self._tree(replica.pid) for name, replica in placed.items() if replica.pid is not None}
        try:
            found = held_devices(trees, self._lists(), exists=self._exists)
        except MeterError:
            return []  # the driver is away; what it said last is still the best guess
        seen: dict[str, tuple[int, str]] = {}
        told = []
        for name, devices in found.items():
            replica, held = placed[name], device_of(devices)
            seen[name] = (replica.pid or 0, held)
            if devices_named(replica.device) != devices and self._held.get(name) != seen[name]:
                told.append(f"{name}: placed on {replica.device}, but runs on {held}; it is metered there")
        self._held = seen  # in one step: another thread may be at `applied`
        return told

    def applied(self, replicas: Sequence[Replica]) -> list[Replica]:
        """The replicas, each with the device that its present process was last seen on."""
        return [
            dataclasses.replace(replica, device=held[1])
            if (held := self._held.get(replica.name)) is not None and held[0] == replica.pid
            else replica
            for replica in replicas
        ]
