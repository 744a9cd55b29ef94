"""Which devices an engine uses: as it was placed, and as the driver sees its processes."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from pathlib import Path

__all__ = ["device_of", "devices_named", "exists_here", "held_devices"]


def devices_named(device: str) -> frozenset[str]:
    """The metered devices in a `Replica.device`: `gpu:0,1` → gpu:0 and gpu:1, `node-b/gpu:0` → itself.

    None for `cpu` and `remote`: a local engine shares the host's devices by CPU time, and of one that runs elsewhere
    nothing is known unless its device says the node.
    """
    kind, colon, numbers = device.partition(":")
    if not colon:
        return frozenset({device} if "/" in device else ())
    return frozenset(f"{kind}:{number}" for number in numbers.split(",")) if kind != "cpu" else frozenset()


def device_of(names: Collection[str]) -> str:
    """The other way round, for devices of one kind on one node: gpu:1 and gpu:0 → `gpu:0,1`."""
    kind = next(iter(names)).partition(":")[0]
    numbers = sorted(int(name.partition(":")[2]) for name in names)
    return f"{kind}:{','.join(map(str, numbers))}"


def held_devices(
    trees: Mapping[str, Collection[int]], lists: Mapping[str, Collection[int]], *, exists: Callable[[int], bool]
) -> dict[str, frozenset[str]]:
    """The devices that each engine's processes compute on; an engine of which that is not known is absent.

    `trees` are the processes of each engine, `lists` those that the driver sees on each device. In a container the
    driver may count processes as the host does, and then a number that looks like one of ours can be anybody's: so
    nothing is known if it lists a process that does not exist here. An engine that no list has is absent as well: it
    has not touched its devices yet, or is hidden. Engines that share a device both have it.
    """
    if not all(exists(pid) for pids in lists.values() for pid in pids):
        return {}
    held = {
        engine: frozenset(device for device, pids in lists.items() if not tree.isdisjoint(pids))
        for engine, tree in ((engine, frozenset(pids)) for engine, pids in trees.items())
    }
    return {engine: devices for engine, devices in held.items() if devices}


def exists_here(pid: int, proc: Path = Path("/proc")) -> bool:
    """Is there such a process, as this process counts them?"""
    return (proc / str(pid)).exists()
