"""Powercap trees as kernels show them: folders, links and files."""

from __future__ import annotations

from pathlib import Path

__all__ = ["AMD_EPYC", "INTEL_LAPTOP", "INTEL_SERVER", "Powercap"]

# Zone, name, max_energy_range_uj: the layout of such machines.
INTEL_SERVER = {
    "intel-rapl:0": ("package-0", 262_143_328_850),
    "intel-rapl:0:0": ("dram", 65_712_999_613),
    "intel-rapl:1": ("package-1", 262_143_328_850),
    "intel-rapl:1:0": ("dram", 65_712_999_613),
}
INTEL_LAPTOP = {
    "intel-rapl:0": ("package-0", 262_143_328_850),
    "intel-rapl:0:0": ("core", 262_143_328_850),
    "intel-rapl:0:1": ("uncore", 262_143_328_850),
    "intel-rapl:1": ("psys", 262_143_328_850),
    "intel-rapl-mmio:0": ("package-0", 262_143_328_850),
}
AMD_EPYC = {
    "intel-rapl:0": ("package-0", 65_532_610_987),
    "intel-rapl:0:0": ("core", 65_532_610_987),
    "intel-rapl:1": ("package-1", 65_532_610_987),
}


class Powercap:
    """`root` is the /sys/class/powercap of a machine; every counter begins at 1 J."""

    def __init__(self, folder: Path, zones: dict[str, tuple[str, int]]) -> None:
        self.root = folder / "class"
        self._devices = folder / "devices"
        self._ranges: dict[str, int] = {}
        self.root.mkdir(parents=True)
        for control in ("intel-rapl", "intel-rapl-mmio"):  # the control types are listed beside the zones
            (self._devices / control).mkdir(parents=True)
            (self.root / control).symlink_to(self._devices / control)
        for zone, (name, range_uj) in zones.items():
            self.add(zone, name, range_uj)

    def add(self, zone: str, name: str, range_uj: int) -> None:
        control, _, numbers = zone.partition(":")
        parts = numbers.split(":")
        folder = self._devices / control
        for depth in range(len(parts)):  # a zone lies in the folder of the one above it
            folder /= f"{control}:{':'.join(parts[: depth + 1])}"
        folder.mkdir(parents=True)
        (folder / "name").write_text(f"{name}\n")
        (folder / "max_energy_range_uj").write_text(f"{range_uj}\n")
        (folder / "enabled").write_text("1\n")
        (self.root / zone).symlink_to(folder)
        self._ranges[zone] = range_uj
        self.set(zone, 1_000_000)

    def set(self, zone: str, energy_uj: int) -> None:
        (self.root / zone / "energy_uj").write_text(f"{energy_uj}\n")

    def use(self, zone: str, energy_uj: int) -> None:
        """Count on, and wrap as the hardware does."""
        before = int((self.root / zone / "energy_uj").read_text())
        self.set(zone, (before + energy_uj) % self._ranges[zone])

    def take_counter(self, zone: str) -> None:
        (self.root / zone / "energy_uj").unlink()

    def remove(self, zone: str) -> None:
        """As when the driver is unloaded."""
        (self.root / zone).unlink()
