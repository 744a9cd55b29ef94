"""Who asks: the API key in a request's headers becomes a tenant."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Protocol

__all__ = ["Authenticator", "OpenDoor"]

Headers = Iterable[tuple[bytes, bytes]]

DEFAULT_TENANT: Final = "default"


class Authenticator(Protocol):
    """Tells tenants apart."""

    def tenant_of(self, headers: Headers) -> str:
        """The tenant that these headers prove; microseconds, no waiting.

        Raises `UnauthenticatedError` if they prove none. The client's key ends here: it is never sent to an engine.
        """


class OpenDoor:
    """Everybody is the tenant `default`: there are no keys, so the gateway listens on loopback only."""

    def tenant_of(self, headers: Headers) -> str:  # noqa: ARG002  # an open door looks at nobody
        return DEFAULT_TENANT
