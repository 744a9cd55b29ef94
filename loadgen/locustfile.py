"""Load on an OpenAI-compatible server: `locust -f loadgen/`."""

from __future__ import annotations

from typing import Any

from locust import User, constant, events, task

from loadgen._options import add_options
from loadgen._plan import DEFAULT_HOST
from loadgen._session import attach, session_of

__all__ = ["ChatUser"]


@events.init_command_line_parser.add_listener  # type: ignore[untyped-decorator]  # Locust's events have no types
def _add_options(parser: Any, **_: Any) -> None:
    add_options(parser)


@events.init.add_listener  # type: ignore[untyped-decorator]
def _attach(environment: Any, **_: Any) -> None:
    attach(environment)


class ChatUser(User):
    """Closed loop: one request after another. Open loop: stands for the process's dispatcher, which sends them all."""

    host = DEFAULT_HOST
    wait_time = constant(0)

    @task
    def chat(self) -> None:
        session_of(self.environment).work()
