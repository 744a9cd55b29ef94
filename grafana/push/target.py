"""A running Grafana: where it is, who we are there, and whether it is new enough."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from grafana_client import GrafanaApi
from grafana_client.client import GrafanaClientError, GrafanaException
from niquests.exceptions import RequestException

from grafana.push.errors import PushError

__all__ = ["LOWEST_VERSION", "Target", "absent_as_none", "answered"]

LOWEST_VERSION: Final = (11, 1)
"""The scatter plots need the automatic mapping of its XY chart."""

_TIMEOUT_S: Final = 20.0
_NOT_FOUND: Final = 404
_REFUSED: Final = (401, 403)

_Answer = TypeVar("_Answer")


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where to, and as whom."""

    url: str
    token: str | None = field(default=None, repr=False)
    user: str | None = None
    password: str | None = field(default=None, repr=False)

    @classmethod
    def of(cls, url: str | None, environment: Mapping[str, str] | None = None) -> Target:
        """`url`, or GRAFANA_URL; GRAFANA_TOKEN, or GRAFANA_USER and GRAFANA_PASSWORD. Raises `PushError`."""
        given = os.environ if environment is None else environment  # noqa: TID251  # secrets come by it
        where = url or given.get("GRAFANA_URL")
        if not where:
            raise PushError("No Grafana is named. Give --url or set GRAFANA_URL, e.g. http://127.0.0.1:3000.")
        if not where.startswith(("http://", "https://")):
            raise PushError(f"{where!r} is no address. Write it as http://HOST:PORT or https://HOST.")
        token, user, password = (given.get(f"GRAFANA_{name}") for name in ("TOKEN", "USER", "PASSWORD"))
        if not token and not (user and password):
            raise PushError(
                "Nobody may write there without a name. Set GRAFANA_TOKEN (a service account with the role Editor), "
                "or GRAFANA_USER and GRAFANA_PASSWORD."
            )
        return cls(url=where.rstrip("/"), token=token, user=user, password=password)

    def connect(self) -> GrafanaApi:
        """Raises `PushError` if nobody answers, the credentials are wrong, or it is too old."""
        credential = self.token or (self.user, self.password)
        api = GrafanaApi.from_url(self.url, credential=credential, timeout=_TIMEOUT_S)
        version = answered(self, lambda: str(api.version or ""))
        numbers = tuple(int(number) for number in re.findall(r"\d+", version)[:2])
        if numbers < LOWEST_VERSION:
            lowest = ".".join(map(str, LOWEST_VERSION))
            raise PushError(f"{self.url} is Grafana {version or '(unknown)'}; these dashboards need {lowest} or newer.")
        return api


def answered(target: Target, ask: Callable[[], _Answer]) -> _Answer:
    """What Grafana answers. Raises `PushError` with what to do."""
    try:
        return ask()
    except GrafanaClientError as exc:
        if exc.status_code in _REFUSED:
            raise PushError(
                f"{target.url} refuses these credentials ({exc.status_code}). Check GRAFANA_TOKEN, or GRAFANA_USER and "
                "GRAFANA_PASSWORD; the account needs the role Editor, and Admin for data sources."
            ) from exc
        raise PushError(f"{target.url} does not take this: {exc.message} ({exc.response}).") from exc
    except GrafanaException as exc:
        raise PushError(f"{target.url} failed: {exc.message}. See its log.") from exc
    except (RequestException, OSError) as exc:
        raise PushError(f"{target.url} does not answer ({exc}). Is it running, and is the address right?") from exc


def absent_as_none(ask: Callable[[], Any]) -> Callable[[], Any]:
    """The same question; what does not exist is None."""

    def asked() -> Any:
        try:
            return ask()
        except GrafanaClientError as exc:
            if exc.status_code == _NOT_FOUND:
                return None
            raise

    return asked
