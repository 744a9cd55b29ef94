"""The requests that run, by id."""

from __future__ import annotations

from server.gateway.client import Client

__all__ = ["Visits"]


class Visits:
    """Gives ids, and knows whose request runs under each."""

    def __init__(self, boot: str) -> None:
        """`boot`: a name of this worker's life, which no other has."""
        self._boot = boot
        self._given = 0
        self._clients: dict[str, Client] = {}

    @property
    def running(self) -> int:
        return len(self._clients)

    def request_id(self, wanted: str | None) -> str:
        """`wanted` unless a request of that id is running; else one that is unique among all workers' lives."""
        while wanted is None or wanted in self._clients:
            self._given += 1
            wanted = f"{self._boot}-{self._given:x}"
        return wanted

    def began(self, request_id: str, client: Client) -> None:
        self._clients[request_id] = client

    def ended(self, request_id: str) -> None:
        del self._clients[request_id]

    def cancel(self) -> None:
        """End all that still run; each client is told that the gateway shuts down."""
        for client in list(self._clients.values()):
            client.cancel()
