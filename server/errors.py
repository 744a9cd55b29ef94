"""Everything that can go wrong, as one tree.

WattgateError                      message: what happened, then what to do
├── ConfigError                    a setting is wrong; nothing was started
├── StartError                     a process could not be started
├── CheckpointError                a checkpoint's or adapter's files are missing or broken
├── IncompatibleError              this engine cannot serve that checkpoint or adapter on this device
├── MeterError                     a meter cannot read its device
├── TraceError                     a file for a replay cannot be read
├── CarbonSourceError              a source of carbon intensity is silent, or tells nonsense
├── WireError                      a peer on the bus speaks another version, or nonsense
└── RequestError                   what a client is told        HTTP  OpenAI `type`
    ├── BadRequestError            the request is malformed     400   invalid_request_error
    ├── UnauthenticatedError       no key, or an unknown one    401   authentication_error
    ├── PermissionDeniedError      the key may not do that      403   permission_error
    ├── UnknownModelError          no such model id             404   invalid_request_error
    ├── NotFoundError              no such path or object       404   invalid_request_error
    ├── MethodNotAllowedError      wrong verb                   405   invalid_request_error
    ├── ConflictError              it exists, or is in use      409   invalid_request_error
    ├── SlowClientError            the request came too slowly 408   invalid_request_error
    ├── HeadersTooLargeError       its head is too long        431   invalid_request_error
    ├── BodyTooLargeError          over `gateway.max_body_bytes` 413  invalid_request_error
    ├── ContendedError             too busy, come back later    429   rate_limit_error
    ├── RateLimitedError           the key's limit is spent     429   rate_limit_error
    ├── BudgetSpentError           the tenant's budget is spent 429   insufficient_quota
    ├── UpstreamFailedError        the engine broke             502   upstream_error
    ├── NoCapacityError            nothing can serve this now   503   overloaded_error
    └── UpstreamTimeoutError       the engine was too slow      504   upstream_timeout
"""

from __future__ import annotations

from typing import Any, ClassVar

from server.units import Seconds

__all__ = [
    "BadRequestError",
    "BodyTooLargeError",
    "BudgetSpentError",
    "CarbonSourceError",
    "CheckpointError",
    "ConfigError",
    "ConflictError",
    "ContendedError",
    "HeadersTooLargeError",
    "IncompatibleError",
    "MeterError",
    "MethodNotAllowedError",
    "NoCapacityError",
    "NotFoundError",
    "PermissionDeniedError",
    "RateLimitedError",
    "RequestError",
    "SlowClientError",
    "StartError",
    "TraceError",
    "UnauthenticatedError",
    "UnknownModelError",
    "UpstreamFailedError",
    "UpstreamTimeoutError",
    "WattgateError",
    "WireError",
]


class WattgateError(Exception):
    """The root. `str(error)` is fit for a person: what happened, then what to do."""


class ConfigError(WattgateError):
    """A setting is wrong. Lists every problem found, one a line."""


class StartError(WattgateError):
    """A process could not be started or did not become ready."""


class CheckpointError(WattgateError):
    """The files of a checkpoint or an adapter are missing, truncated, or say nonsense; names file and key."""


class IncompatibleError(WattgateError):
    """An engine cannot serve a checkpoint or an adapter on its device.

    `rule` names the rule (a short slug), `instead` says what would work.
    """

    def __init__(self, message: str, *, rule: str, instead: str) -> None:
        super().__init__(f"{message} Instead: {instead}")
        self.rule = rule
        self.instead = instead


class MeterError(WattgateError):
    """A meter cannot read its device: gone, forbidden, or never there."""


class CarbonSourceError(WattgateError):
    """A source of carbon intensity did not answer, or its answer is not believed.

    `reason` is a metric label: `unreachable`, `nonsense` or `stale`.
    """

    def __init__(self, message: str, *, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


class TraceError(WattgateError):
    """A file of requests or meter readings is not there, or has a line that is none; names file and line."""


class WireError(WattgateError):
    """A frame on the bus is of another version, too long, or cannot be decoded."""


class RequestError(WattgateError):
    """What a client is told, in OpenAI's error form."""

    status: ClassVar[int] = 500
    type: ClassVar[str] = "internal_error"
    code: ClassVar[str | None] = None
    headers: tuple[tuple[bytes, bytes], ...] = ()
    """What the answer has besides `retry-after`."""

    def __init__(self, message: str, *, param: str | None = None, retry_after: Seconds | None = None) -> None:
        super().__init__(message)
        self.param = param
        self.retry_after = retry_after

    def body(self) -> dict[str, Any]:
        """The OpenAI error object: `{"error": {"message", "type", "param", "code"}}`."""
        return {"error": {"message": str(self), "type": self.type, "param": self.param, "code": self.code}}


class BadRequestError(RequestError):
    """The request is malformed, or asks for what the endpoint does not do."""

    status = 400
    type = "invalid_request_error"


class UnauthenticatedError(RequestError):
    """There is no API key in the request, or nobody knows it."""

    status = 401
    type = "authentication_error"
    code = "invalid_api_key"
    headers = ((b"www-authenticate", b"Bearer"),)


class PermissionDeniedError(RequestError):
    """The key is known, and does not allow this."""

    status = 403
    type = "permission_error"
    code = "permission_denied"


class NotFoundError(RequestError):
    """There is nothing at this path, or no such object."""

    status = 404
    type = "invalid_request_error"
    code = "not_found"


class UnknownModelError(NotFoundError):
    """No model, variant or adapter has this id; the message names near matches."""

    code = "model_not_found"


class MethodNotAllowedError(RequestError):
    """The path exists, the verb does not."""

    status = 405
    type = "invalid_request_error"
    code = "method_not_allowed"


class ConflictError(RequestError):
    """What should be made exists already, or what should go is in use."""

    status = 409
    type = "invalid_request_error"
    code = "conflict"


class SlowClientError(RequestError):
    """The rest of the request did not come in time."""

    status = 408
    type = "invalid_request_error"
    code = "request_timeout"


class HeadersTooLargeError(RequestError):
    """The request's head is longer, or has more headers, than the gateway reads."""

    status = 431
    type = "invalid_request_error"
    code = "headers_too_large"


class BodyTooLargeError(RequestError):
    """The body is longer than `gateway.max_body_bytes`."""

    status = 413
    type = "invalid_request_error"
    code = "body_too_large"


class ContendedError(RequestError):
    """Too many requests are in flight or waiting; `retry_after` says when to come back."""

    status = 429
    type = "rate_limit_error"
    code = "contended"


class RateLimitedError(RequestError):
    """A limit of the key is spent; `retry_after` says when this request would pass."""

    status = 429
    type = "rate_limit_error"
    code = "rate_limit_exceeded"

    def __init__(self, message: str, *, retry_after: Seconds, headers: tuple[tuple[bytes, bytes], ...] = ()) -> None:
        super().__init__(message, retry_after=retry_after)
        self.headers = headers


class BudgetSpentError(RequestError):
    """A budget of the tenant is spent; `retry_after` says when it begins anew."""

    status = 429
    type = "insufficient_quota"
    code = "insufficient_quota"
    # Clients of OpenAI's and Anthropic's make try a 429 again at once unless they are told that it is no use.
    headers = ((b"x-should-retry", b"false"),)


class UpstreamFailedError(RequestError):
    """The engine refused the connection, died, or answered nonsense."""

    status = 502
    type = "upstream_error"
    code = "engine_failed"


class NoCapacityError(RequestError):
    """No healthy replica can serve this model now."""

    status = 503
    type = "overloaded_error"
    code = "no_capacity"


class UpstreamTimeoutError(RequestError):
    """The engine accepted the request and then did not answer in time."""

    status = 504
    type = "upstream_timeout"
    code = "engine_timeout"
