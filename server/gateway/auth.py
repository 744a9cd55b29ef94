"""Who asks: the API key in a request's headers becomes a grant."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Final

import msgspec

from server.errors import NoCapacityError, PermissionDeniedError, UnauthenticatedError
from server.units import Seconds
from server.wire import KeyGrant, Snapshot

__all__ = ["OPEN_GRANT", "Keyring", "visible"]

OPEN_GRANT: Final = KeyGrant(id="open", tenant="default")
"""Everybody's, while there are no keys and the gateway listens on loopback only."""

_BEARER: Final = b"bearer "
_MAX_REMEMBERED: Final = 10_000


class Keyring:
    """The keys of the last snapshot.

    A key is looked up by its SHA-256 digest, once; from then on by the header's value, which saves the digest. Neither
    look-up tells a stranger by its duration how near a guess was: the digest of a guess is not to be steered, and a
    dict compares the value itself only after its (randomly salted) hash was equal.
    """

    def __init__(self) -> None:
        self._keys: dict[str, KeyGrant] | None = {}
        self._known = False
        self._by_bearer: dict[bytes, KeyGrant] = {}
        self._by_x_api_key: dict[bytes, KeyGrant] = {}

    def replace(self, keys: dict[str, KeyGrant] | None) -> None:
        """From now on these keys hold; None: there are none, and everybody is served."""
        self._keys = keys
        self._known = True
        self._by_bearer, self._by_x_api_key = {}, {}

    def holder_of(self, headers: Mapping[bytes, bytes]) -> KeyGrant:
        """What these headers allow: `Authorization: Bearer KEY`, else `x-api-key: KEY`; names are in lower case.

        Raises `UnauthenticatedError`, and `NoCapacityError` before the first snapshot: a request that was let in then
        could outlive it. The key ends here: it is never sent to an engine, logged or said back.
        """
        if self._keys is None:
            return OPEN_GRANT
        value = headers.get(b"authorization")
        if value is not None:
            return self._by_bearer.get(value) or self._bearer(value)
        value = headers.get(b"x-api-key")
        if value is not None:
            return self._by_x_api_key.get(value) or self._look_up(value.strip(), self._by_x_api_key, value)
        raise self._stranger("There is no API key in the request. Send it as `Authorization: Bearer KEY`.")

    def check_model(self, grant: KeyGrant, model: str) -> None:
        """Raises `PermissionDeniedError` unless the key may ask for `model`, literally: `demo` is not `demo:int4`."""
        if grant.models is not None and model not in grant.models:
            raise PermissionDeniedError(
                f"This API key may not ask for `{model[:200]}`; `GET /v1/models` lists what it may ask for.",
                param="model",
            )

    def _bearer(self, value: bytes) -> KeyGrant:
        if value[: len(_BEARER)].lower() != _BEARER:
            raise self._stranger("The Authorization header is not of the form `Bearer KEY`.")
        return self._look_up(value[len(_BEARER) :].strip(), self._by_bearer, value)

    def _look_up(self, secret: bytes, remembered: dict[bytes, KeyGrant], value: bytes) -> KeyGrant:
        grant = self._keys.get(hashlib.sha256(secret).hexdigest()) if self._keys is not None else OPEN_GRANT
        if grant is None:
            raise self._stranger("Nobody knows this API key, or it was revoked or has expired.")
        if len(remembered) >= _MAX_REMEMBERED:  # one key can be written with many spaces
            remembered.clear()
        remembered[value] = grant
        return grant

    def _stranger(self, message: str) -> UnauthenticatedError | NoCapacityError:
        if not self._known:
            return NoCapacityError(
                "The gateway is starting and does not know its keys yet. Try again in a moment.",
                retry_after=Seconds(1.0),
            )
        return UnauthenticatedError(message)


def visible(snapshot: Snapshot, grant: KeyGrant) -> Snapshot:
    """The snapshot with those routes only that the key may ask for."""
    if grant.models is None:
        return snapshot
    allowed = frozenset(grant.models)
    routes = {name: route for name, route in snapshot.routes.items() if name in allowed}
    return msgspec.structs.replace(snapshot, routes=routes)
