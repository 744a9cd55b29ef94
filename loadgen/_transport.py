"""The connections of one process: kept alive, opened when needed."""

from __future__ import annotations

import sys
from typing import Any, Final
from urllib.parse import urlsplit

from gevent import socket, ssl

from loadgen._connection import SO_TIMESTAMPNS, Clocks, Connection

__all__ = ["Connections"]

_CONNECT_S: Final = 5.0


class Connections:
    """To one server."""

    def __init__(self, url: str, clocks: Clocks) -> None:
        parts = urlsplit(url)
        self._tls = ssl.create_default_context() if parts.scheme == "https" else None
        self._host, self._port = parts.hostname or "", parts.port or (443 if self._tls else 80)
        self._clocks = clocks
        self._idle: list[Connection] = []
        self._address: Any = None
        # Linux begins to stamp what it receives some time after the first socket has asked for it, and ends with the
        # last: this one asks from the start to the end.
        self._stamping = self._socket_with_stamps(socket.AF_INET, socket.SOCK_STREAM) if self.stamps else None
        self.authority = parts.netloc.rpartition("@")[2]
        """What the Host header says."""
        self.base_path = parts.path.rstrip("/")

    @property
    def stamps(self) -> bool:
        """Whether reads carry the kernel's receive time."""
        return self._tls is None and sys.platform == "linux"

    def take(self, *, fresh: bool = False) -> Connection:
        """An idle connection, or a new one. Raises OSError."""
        return self._idle.pop() if self._idle and not fresh else self._open()

    def give_back(self, connection: Connection) -> None:
        """After its answer: kept if the server keeps it, else closed."""
        if connection.reusable:
            connection.keep()
            self._idle.append(connection)
        else:
            connection.close()

    def close(self) -> None:
        for connection in self._idle:
            connection.close()
        self._idle.clear()
        if self._stamping is not None:
            self._stamping.close()

    def _open(self) -> Connection:
        if self._address is None:
            # Once: a look-up in the middle of a run would make a request late.
            self._address = socket.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM)[0]
        family, kind, protocol, _, address = self._address
        sock = (self._socket_with_stamps if self.stamps else socket.socket)(family, kind, protocol)
        try:
            sock.settimeout(_CONNECT_S)
            sock.connect(address)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._tls is not None:
                sock = self._tls.wrap_socket(sock, server_hostname=self._host)
        except BaseException:
            sock.close()
            raise
        return Connection(sock, self._clocks, plain=self._tls is None)

    def _socket_with_stamps(self, family: int, kind: int, protocol: int = 0) -> Any:
        sock = socket.socket(family, kind, protocol)
        sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        return sock
