"""The listening sockets: opened here, served by children, closed at the very end."""

from __future__ import annotations

import socket
from pathlib import Path

from server.launcher.plan import Address, Plan

__all__ = ["Sockets", "unix_listener"]

_BACKLOG = 4096


class Sockets:
    """One for each worker slot, one for the control port, one for the bus.

    A slot's socket is never closed while the gateway runs: that would reset the connections that wait in it.
    """

    def __init__(self, plan: Plan) -> None:
        """Raises `OSError` that says which port is taken, and what to do."""
        self._address = plan.gateway
        self.bus = unix_listener(plan.bus)
        # SO_REUSEPORT would share the port even with another gateway of this user: look first whether it is free.
        _tcp(plan.gateway, shared=False).close()
        self.gateway = [_tcp(plan.gateway, shared=True) for _ in range(plan.workers)]
        self.control = _tcp(plan.control, shared=False)

    def grow(self, count: int) -> None:
        """Have at least `count` slots. New ones are bound only: connections come once their worker listens.

        Raises `OSError` if there cannot be so many.
        """
        while len(self.gateway) < count:
            self.gateway.append(_tcp(self._address, shared=True, listening=False))

    def of_slot(self, slot: int, workers: int) -> list[int]:
        """The descriptors that worker `slot` of `workers` serves: its own, and its share of those nobody else has."""
        return [listener.fileno() for number, listener in enumerate(self.gateway) if number % workers == slot]

    def close_gateway(self) -> None:
        """Take no more clients, once the workers have let go too."""
        for listener in self.gateway:
            listener.close()


def unix_listener(path: Path) -> socket.socket:
    """A listening Unix socket that only this user reaches; replaces one that a killed gateway left."""
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(path))
    path.chmod(0o600)
    listener.listen(_BACKLOG)
    return listener


def _tcp(address: Address, *, shared: bool, listening: bool = True) -> socket.socket:
    listener = socket.socket(socket.AF_INET6 if ":" in address.host else socket.AF_INET, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind((address.host, address.port))
        if listening:
            listener.listen(_BACKLOG)
    except OSError as exc:
        listener.close()
        raise OSError(
            f"cannot listen on {address.host} port {address.port}: {exc.strerror or exc}. "
            f"Stop what uses it (`ss -ltnp 'sport = :{address.port}'` shows it), "
            f"or set `{address.setting}` to another."
        ) from exc
    return listener
