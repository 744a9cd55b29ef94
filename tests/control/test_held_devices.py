"""On which GPUs engines really run, by the driver's lists of processes."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from collections.abc import Collection, Mapping
from typing import Any

import pytest

from server.config import Config, EngineSettings
from server.control.devices import place_engines
from server.control.held_devices import HeldDevices
from server.energy.mapping import device_of, devices_named, exists_here, held_devices
from server.errors import MeterError
from server.fleet import EngineState, Replica
from server.units import Seconds

# --- names ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("device", "names"),
    [
        ("gpu:0", {"gpu:0"}),
        ("gpu:0,1", {"gpu:0", "gpu:1"}),
        ("node-b/gpu:2,3", {"node-b/gpu:2", "node-b/gpu:3"}),
        ("node-b/cpu", {"node-b/cpu"}),
        ("cpu", set()),
        ("cpu:0-3", set()),
        ("remote", set()),
    ],
)
def test_device_of_a_replica_names_metered_devices(device: str, names: set[str]) -> None:
    assert devices_named(device) == names


@pytest.mark.parametrize("device", ["gpu:0", "gpu:0,1,10", "node-b/gpu:2,3"])
def test_names_and_device_are_two_ways_to_say_the_same(device: str) -> None:
    assert device_of(devices_named(device)) == device


# --- what engines hold ------------------------------------------------------------------------------------------------


def all_exist(_pid: int) -> bool:
    return True


def test_engine_holds_every_device_that_one_of_its_processes_is_on() -> None:
    trees = {"tp": [10, 11, 12], "lone": [20]}
    lists = {"gpu:0": {11}, "gpu:1": {12}, "gpu:2": {20, 99}, "gpu:3": set[int]()}
    assert held_devices(trees, lists, exists=all_exist) == {
        "tp": frozenset({"gpu:0", "gpu:1"}),
        "lone": frozenset({"gpu:2"}),
    }


def test_engines_that_share_a_device_both_hold_it() -> None:
    found = held_devices({"a": [1], "b": [2]}, {"gpu:0": {1, 2}}, exists=all_exist)
    assert found == {"a": frozenset({"gpu:0"}), "b": frozenset({"gpu:0"})}


def test_engine_that_no_list_has_is_unknown_not_without_a_device() -> None:
    assert held_devices({"starting": [1]}, {"gpu:0": {7}}, exists=all_exist) == {}


def test_numbers_of_another_namespace_tell_nothing_even_where_they_look_like_ours() -> None:
    lists = {"gpu:0": {42, 31_337}, "gpu:1": {43}}
    assert held_devices({"a": [42]}, lists, exists=lambda pid: pid in {42, 43}) == {}


def test_own_process_exists_and_a_number_beyond_all_does_not() -> None:
    assert exists_here(os.getpid())
    assert not exists_here(2**30)


# --- replicas ---------------------------------------------------------------------------------------------------------


def replica(name: str, device: str, pid: int | None) -> Replica:
    facts: dict[str, Any] = dict.fromkeys(field.name for field in dataclasses.fields(Replica))
    facts |= {"name": name, "device": device, "pid": pid, "state": EngineState.READY, "since": Seconds(0.0)}
    return Replica(**{**facts, "ejections": {}})


class Driver:
    """Lists of processes that the test sets."""

    def __init__(self) -> None:
        self.lists: Mapping[str, Collection[int]] = {}
        self.away = False
        self.held = HeldDevices(self._processes, tree=lambda root: [root, root + 1], exists=all_exist)

    def _processes(self) -> Mapping[str, Collection[int]]:
        if self.away:
            raise MeterError("NVML does not start.")
        return self.lists

    def devices(self, *replicas: Replica) -> dict[str, str]:
        return {replica.name: replica.device for replica in self.held.applied(replicas)}


@pytest.fixture
def driver() -> Driver:
    return Driver()


def test_engine_is_metered_where_it_runs_and_that_is_said_once(driver: Driver) -> None:
    engines = (
        replica("a", "gpu:0", 10),
        replica("b", "gpu:1", 20),
        replica("c", "cpu", 30),
        replica("d", "remote", None),
    )
    driver.lists = {"gpu:0": {21}, "gpu:1": {11}, "gpu:2": set()}
    (a, b) = driver.held.look(engines)
    assert a.startswith("a: placed on gpu:0, but runs on gpu:1")
    assert b.startswith("b: placed on gpu:1, but runs on gpu:0")
    assert driver.devices(*engines) == {"a": "gpu:1", "b": "gpu:0", "c": "cpu", "d": "remote"}
    assert driver.held.look(engines) == []
    assert driver.devices(*engines)["a"] == "gpu:1"


def test_engine_of_which_nothing_is_known_stays_where_it_was_placed(driver: Driver) -> None:
    engine = replica("a", "gpu:0,1", 10)
    assert driver.devices(engine) == {"a": "gpu:0,1"}
    assert driver.held.look([engine]) == []
    assert driver.devices(engine) == {"a": "gpu:0,1"}


def test_driver_that_is_away_does_not_change_what_was_seen(driver: Driver) -> None:
    engine = replica("a", "gpu:0", 10)
    driver.lists = {"gpu:3": {10}}
    driver.held.look([engine])
    driver.away = True
    assert driver.held.look([engine]) == []
    assert driver.devices(engine) == {"a": "gpu:3"}


def test_engine_that_started_again_is_placed_anew(driver: Driver) -> None:
    driver.lists = {"gpu:3": {10}}
    driver.held.look([replica("a", "gpu:0", 10)])
    assert driver.devices(replica("a", "gpu:0", 50)) == {"a": "gpu:0"}


def test_child_of_an_engine_is_found_in_its_real_process_tree() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        held = HeldDevices(lambda: {"gpu:1": [child.pid]})
        (told,) = held.look([replica("a", "gpu:0", os.getpid())])
        child.communicate(b"\n", timeout=30)
    assert "runs on gpu:1" in told


# --- engines elsewhere ------------------------------------------------------------------------------------------------


def test_external_engine_on_this_machine_is_on_the_gpu_that_it_names() -> None:
    engine = EngineSettings(name="own", model="m", url="http://127.0.0.1:8000", precision="bf16", device="gpu:1")
    (place,) = place_engines(Config.model_validate({"engines": [engine]}), ())
    assert (place.kind, str(place)) == ("remote", "gpu:1")


@pytest.mark.parametrize(
    ("device", "placed"), [("auto", "remote"), ("node-b/gpu:0,1", "node-b/gpu:0,1"), ("gpu:0", "remote")]
)
def test_external_engine_is_on_the_other_nodes_devices_if_it_says_so(device: str, placed: str) -> None:
    engine = EngineSettings(name="far", model="m", url="http://node-b:8000", precision="bf16")
    config: Any = type("Config", (), {"engines": [engine.model_copy(update={"device": device})]})()
    (place,) = place_engines(config, [])
    assert str(place) == placed
    assert place.kind == "remote"
