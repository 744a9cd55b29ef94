"""Secrets that come by the environment, so that no list of processes shows them."""

from __future__ import annotations

import os
from collections.abc import Mapping

__all__ = ["ADMIN_KEY", "admin_key"]

ADMIN_KEY = "WATTGATE_ADMIN_KEY"


def admin_key(environ: Mapping[str, str] | None = None) -> str | None:
    """The key for the control port; None: there is none."""
    environ = os.environ if environ is None else environ  # noqa: TID251  # configuration may read it
    return environ.get(ADMIN_KEY) or None
