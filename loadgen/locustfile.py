"""Load on an OpenAI-compatible server: `locust -f loadgen/`."""

from __future__ import annotations

from typing import Any

from locust import FastHttpUser, constant, events, task

from loadgen._plan import DEFAULT_HOST, add_options
from loadgen._session import attach, session_of

__all__ = ["ChatUser"]


@events.init_command_line_parser.add_listener  # type: ignore[untyped-decorator]  # Locust's events have no types
def _add_options(parser: Any, **_: Any) -> None:
    add_options(parser)
    # Locust would listen on every interface.
    parser.set_defaults(web_host="127.0.0.1")


@events.init.add_listener  # type: ignore[untyped-decorator]
def _attach(environment: Any, **_: Any) -> None:
    attach(environment)


class ChatUser(FastHttpUser):
    """Closed loop: one request after another. Open loop: one such user a process sends the whole schedule."""

    host = DEFAULT_HOST
    wait_time = constant(0)
    connection_timeout = 5.0
    network_timeout = 120.0
    """Longest silence within an answer, seconds."""
    concurrency = 10_000
    """Connections; what bounds them is --max-in-flight."""

    @task
    def chat(self) -> None:
        session_of(self.environment).work(self.client)
