"""Asks the control plane, with its key; every answer or a sentence why there is none."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from types import TracebackType
from typing import Any, Final, Self

import httpx

from loadgen._errors import LoadError
from loadgen._secrets import control_headers

__all__ = ["Control", "RefusedError"]

_TIMEOUT_S: Final = 10.0
_REFUSED: Final = frozenset({httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN})


class RefusedError(LoadError):
    """The key is missing, wrong, or of a kind that may not do this."""

    ADVICE: Final = (
        "it needs an admin key (a metrics key only reads /metrics); give it with --control-token or WATTGATE_ADMIN_KEY."
    )


class Control:
    """One control plane. Every call raises `LoadError`, and takes at most ten seconds of silence."""

    def __init__(self, url: str, token: str = "") -> None:
        self.url = url
        # No proxy and nothing else from the environment: the port is one on this machine, as a rule.
        self._http = httpx.Client(headers=control_headers(token=token), timeout=_TIMEOUT_S, trust_env=False)
        self.time: datetime | None = None
        """The server's clock at its last answer, whole seconds; None: nothing ever answered."""

    def get(self, path: str, **parameters: str) -> httpx.Response:
        return self._ask("GET", path, params=parameters)

    def get_json(self, path: str) -> dict[str, Any]:
        return self._object(self.get(path))

    def post_json(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        return self._object(self._ask("POST", path, json=dict(body)))

    def close(self) -> None:
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _ask(self, method: str, path: str, **arguments: Any) -> httpx.Response:
        try:
            answer = self._http.request(method, f"{self.url}{path}", **arguments)
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as exc:
            raise LoadError(f"The control API at {self.url} does not answer {path} ({exc}).") from exc
        self.time = _time_of(answer)
        if answer.status_code in _REFUSED:
            raise RefusedError(f"The control API refuses {method} {path}: {RefusedError.ADVICE}")
        if not answer.is_success:
            raise LoadError(f"The control API answered {path} with {answer.status_code}: {answer.text[:200]}")
        return answer

    def _object(self, answer: httpx.Response) -> dict[str, Any]:
        try:
            data = answer.json()
        except ValueError:
            data = None
        if not isinstance(data, dict):
            raise LoadError(f"The control API's {answer.request.url.path} is no JSON object.")
        return data


def _time_of(answer: httpx.Response) -> datetime:
    try:
        return parsedate_to_datetime(answer.headers["date"])
    except (KeyError, ValueError):
        return datetime.now(UTC)
