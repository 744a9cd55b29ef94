"""Joules that only grow: the processor's own counter, or those of a running gateway's control API."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from pathlib import Path
from typing import Final, Protocol

from quant.errors import QuantError

__all__ = ["ControlCounter", "EnergyCounter", "RaplCounter", "energy_counter"]

_POWERCAP: Final = Path("/sys/class/powercap")
_SCOPES: Final = ("package-", "dram")  # cores are part of their package, psys of more than it
_JOULES_PER_MICROJOULE: Final = 1e-6
_TIMEOUT_S: Final = 5.0


class EnergyCounter(Protocol):
    """Whole devices' energy, whoever used it: on a machine that does other work as well, too much."""

    @property
    def kind(self) -> str:
        """As the manifest names it."""

    def joules(self) -> float | None:
        """Since some moment in the past; never falls. None: not readable now."""


class RaplCounter:
    """Packages and their memory by the kernel's powercap tree; wraps are made up for if read every few minutes."""

    kind: Final = "rapl"

    def __init__(self, root: Path = _POWERCAP) -> None:
        """Raises `OSError` or `ValueError` if there is no counter that may be read."""
        folders = sorted(root.glob("intel-rapl:*"))
        names = {folder: (folder / "name").read_text(encoding="ascii").strip() for folder in folders}
        self._range = {
            folder: int((folder / "max_energy_range_uj").read_text(encoding="ascii"))
            for folder, name in names.items()
            if name.startswith(_SCOPES)
        }
        if not self._range:
            raise ValueError("no package")
        self._last = {folder: self._count(folder) for folder in self._range}
        self._microjoules = 0

    def joules(self) -> float | None:
        try:
            for folder, largest in self._range.items():
                count = self._count(folder)
                self._microjoules += (count - self._last[folder]) % (largest + 1)
                self._last[folder] = count
        except (OSError, ValueError):
            return None
        return self._microjoules * _JOULES_PER_MICROJOULE

    def _count(self, folder: Path) -> int:
        return int((folder / "energy_uj").read_text(encoding="ascii"))


class ControlCounter:
    """`GET /api/energy` of a control plane on this machine: all its devices."""

    kind: Final = "control"

    def __init__(self, url: str, key: str | None) -> None:
        if not url.startswith(("http://", "https://")):
            raise QuantError(f"{url} is no HTTP address. Give one such as http://127.0.0.1:9100.")
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._request = urllib.request.Request(f"{url.rstrip('/')}/api/energy", headers=headers)  # noqa: S310

    def joules(self) -> float | None:
        try:
            return self.read()
        except QuantError:
            return None

    def read(self) -> float:
        """The same, but raises `QuantError` with the reason."""
        try:
            with urllib.request.urlopen(self._request, timeout=_TIMEOUT_S) as answer:  # noqa: S310
                devices = json.load(answer)["microjoules"]["devices"]
            return sum(map(int, devices.values())) * _JOULES_PER_MICROJOULE
        except (OSError, urllib.error.URLError) as exc:
            raise QuantError(f"{self._request.full_url} cannot be read: {exc}. Check --control and its key.") from exc
        except (ValueError, KeyError, TypeError, AttributeError) as exc:
            raise QuantError(f"{self._request.full_url} answers something else than a control plane does.") from exc


def energy_counter(control_url: str | None, key: str | None) -> EnergyCounter | None:
    """The control plane's if a URL is given (raises `QuantError` if it does not answer), else RAPL, else None."""
    if control_url is not None:
        counter = ControlCounter(control_url, key)
        counter.read()
        return counter
    try:
        return RaplCounter()
    except (OSError, ValueError):
        return None
