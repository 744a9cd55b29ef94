"""Who may come in: at start the addresses, at run time every request on the control port."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_address
from typing import Final

from fastapi.responses import JSONResponse
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from server.clock import Clock
from server.config import Config, ControlSettings
from server.control.key_book import KeyBook
from server.control.keys import KeyKind, KeyStore, store_path
from server.errors import PermissionDeniedError, RequestError, StartError, UnauthenticatedError

__all__ = ["Door", "door_problems", "guarded_kinds", "is_loopback"]

_OPEN_PATH: Final = "/health"
_METRICS_PATH: Final = "/metrics"
_PAGE: Final = "/"
_PAGE_FILES: Final = "/live/"
"""The live page holds no figures: it asks for a key, and the API for the figures."""


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches the address."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def guarded_kinds(config: Config) -> frozenset[KeyKind]:
    """The kinds of keys without which nobody may come in, because others than this machine reach the port."""
    return frozenset(kind for _, host, kind in _addresses(config) if not is_loopback(host))


def door_problems(config: Config, clock: Clock) -> Iterator[tuple[str, str]]:
    """Addresses that others reach although no key guards them, as (setting, what to do). Reads the key store.

    The rule holds at start only: keys that are revoked or expire later leave a closed door, not an open one.
    """
    try:
        keys = KeyStore(store_path(config.state_dir), clock).listed()
    except StartError as exc:
        yield "state_dir", str(exc)
        return
    kinds = {key.kind for key in keys if key.holds(clock.wall())}
    for setting, host, kind in _addresses(config):
        if not is_loopback(host) and kind not in kinds:
            option = " --admin" if kind is KeyKind.ADMIN else ""
            problem = f"{host} is not a loopback address, and there is no {kind} key: whoever reaches it could use it."
            yield setting, f"{problem} Make one first: wattgate key create{option} --config FILE"


def _addresses(config: Config) -> tuple[tuple[str, str, KeyKind], ...]:
    """Setting, host, and the kind of key that guards it."""
    return (
        ("gateway.host", config.gateway.host, KeyKind.CLIENT),
        ("control.host", config.control.host, KeyKind.ADMIN),
    )


class Door:
    """ASGI middleware of the control port: the `Host`, then the key.

    Without an admin key the port stays open (it is on loopback then); with one everything needs it, but `/health` and
    the files of the live page need nothing, and `/metrics` takes a metrics key as well. The `Host` must be one of ours:
    a page in a browser on this machine could otherwise reach the port under a name of its own that resolves to
    127.0.0.1 (DNS rebinding).
    """

    def __init__(self, app: ASGIApp, *, keys: KeyBook, settings: ControlSettings) -> None:
        self._app = app
        self._keys = keys
        self._hosts = {settings.host.lower(), *(host.lower() for host in settings.allowed_hosts)}
        self._any_address = _is_unspecified(settings.host)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] != _OPEN_PATH:
            try:
                self._check(scope["path"], Headers(scope=scope))
            except RequestError as exc:
                headers = {name.decode(): value.decode() for name, value in exc.headers}
                await JSONResponse(exc.body(), exc.status, headers)(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _check(self, path: str, headers: Headers) -> None:
        self._check_host(headers.get("host", ""))
        if path == _PAGE or path.startswith(_PAGE_FILES):
            return
        kinds = (KeyKind.ADMIN, KeyKind.METRICS) if path == _METRICS_PATH else (KeyKind.ADMIN,)
        if not self._keys.closes(*kinds):
            return
        scheme, _, secret = headers.get("authorization", "").partition(" ")
        wanted = "a metrics or admin key" if path == _METRICS_PATH else "an admin key"
        if scheme.lower() != "bearer":
            raise UnauthenticatedError(
                f"{path} needs {wanted}: `Authorization: Bearer KEY`; commands take it from WATTGATE_ADMIN_KEY."
            )
        if not self._keys.opens(secret.strip(), *kinds):
            raise UnauthenticatedError(f"{path} needs {wanted}; this key is none, or was revoked or has expired.")

    def _check_host(self, host: str) -> None:
        name = _without_port(host).lower()
        if name in self._hosts or is_loopback(name) or (self._any_address and _is_address(name)):
            return
        raise PermissionDeniedError(
            f"The control port is not known as {name[:200]!r}. Add the name to `control.allowed_hosts`."
        )


def _without_port(host: str) -> str:
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0]


def _is_address(host: str) -> bool:
    """An address cannot be rebound: only names resolve."""
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def _is_unspecified(host: str) -> bool:
    return _is_address(host) and ip_address(host).is_unspecified
