"""Keys that come by the environment, so that no list of processes shows them."""

from __future__ import annotations

import os
from collections.abc import Mapping

__all__ = ["control_headers", "gateway_headers"]


def control_headers(environ: Mapping[str, str] | None = None, *, token: str = "") -> dict[str, str]:
    """For requests to the control API: `token`, or the key in WATTGATE_ADMIN_KEY, if there is one."""
    return {"Authorization": f"Bearer {token}"} if token else _bearer("WATTGATE_ADMIN_KEY", environ)


def gateway_headers(environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """For requests to the gateway: the key in WATTGATE_API_KEY, if there is one."""
    return _bearer("WATTGATE_API_KEY", environ)


def _bearer(name: str, environ: Mapping[str, str] | None) -> dict[str, str]:
    environ = os.environ if environ is None else environ  # noqa: TID251  # the one reader of keys
    key = environ.get(name)
    return {"Authorization": f"Bearer {key}"} if key else {}
