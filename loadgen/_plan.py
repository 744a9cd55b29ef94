"""What the command line asks for, as one checked value."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from loadgen._arrivals import ARRIVALS, MAX_ARRIVALS
from loadgen._errors import LoadError

__all__ = ["DEFAULT_HOST", "HORIZON_S", "Plan", "add_options", "set_user_count"]

DEFAULT_HOST: Final = "http://127.0.0.1:8080"
HORIZON_S: Final = 3600.0
"""Length of an open-loop schedule when no --run-time says another."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """One load test."""

    host: str
    models: str
    prompt_tokens: int
    output_tokens: int
    stop_at_end: bool
    concurrency: int
    """Closed loop: requests that are always in flight."""
    rate: float
    """Open loop: requests a second; 0 is closed loop."""
    arrivals: str
    requests: int
    """End after that many measured requests; 0 is no such end."""
    seed: int
    salt: str
    warm_up_s: float
    max_in_flight: int
    output: str
    control: str
    run_time_s: float | None
    api_key: str = field(default="", repr=False)

    @property
    def open_loop(self) -> bool:
        return self.rate > 0

    @property
    def horizon_s(self) -> float:
        return self.run_time_s or HORIZON_S

    def to_json(self) -> dict[str, Any]:
        """Everything but the key."""
        return {name: value for name, value in asdict(self).items() if name != "api_key"}

    @classmethod
    def of(cls, options: Namespace, *, host: str | None, fresh_salt: Callable[[], str]) -> Plan:
        """Raises `LoadError` naming the option that is wrong."""
        plan = cls(
            host=(host or DEFAULT_HOST).rstrip("/").removesuffix("/v1"),
            models=options.models,
            prompt_tokens=options.prompt_tokens,
            output_tokens=options.output_tokens,
            stop_at_end=options.stop_at_end,
            concurrency=options.num_users or options.concurrency,
            rate=options.rate,
            arrivals=options.arrivals,
            requests=options.requests,
            seed=options.seed,
            salt=options.salt or fresh_salt(),
            warm_up_s=options.warm_up,
            max_in_flight=options.max_in_flight,
            output=options.output,
            control=options.control.rstrip("/"),
            run_time_s=float(options.run_time) if options.run_time else None,
            api_key=options.api_key,
        )
        _check(plan)
        return plan


def _check(plan: Plan) -> None:
    if not plan.host.startswith(("http://", "https://")):
        raise LoadError(f"--host {plan.host!r} must start with http:// or https://.")
    for option, value, lowest in (
        ("--prompt-tokens", plan.prompt_tokens, 1),
        ("--output-tokens", plan.output_tokens, 1),
        ("--concurrency", plan.concurrency, 1),
        ("--max-in-flight", plan.max_in_flight, 1),
        ("--rate", plan.rate, 0),
        ("--requests", plan.requests, 0),
        ("--seed", plan.seed, 0),
        ("--warm-up", plan.warm_up_s, 0),
    ):
        if not value >= lowest:
            raise LoadError(f"{option} is {value}; it must be at least {lowest}.")
    if plan.arrivals not in ARRIVALS:
        raise LoadError(f"--arrivals {plan.arrivals!r} is none of {', '.join(ARRIVALS)}.")
    if plan.rate * plan.horizon_s > MAX_ARRIVALS:
        raise LoadError(
            f"--rate {plan.rate:g} over {plan.horizon_s:g} s is more than {MAX_ARRIVALS} requests; shorten --run-time."
        )
    if plan.run_time_s is not None and plan.warm_up_s >= plan.run_time_s:
        raise LoadError(
            f"--warm-up {plan.warm_up_s:g} s leaves nothing of --run-time {plan.run_time_s:g} s to measure."
        )


def add_options(parser: Any) -> None:
    """Put the options on Locust's parser.

    Not into a group: Locust's web page shows choices only for options that stand on the parser itself. No default is
    None: the page keeps an option's type from the value it had.
    """
    add = parser.add_argument
    add("--models", default="", metavar="ID=WEIGHT,…", help="Model mix; default: every id the server lists, equally.")
    add("--prompt-tokens", type=int, default=128, help="Length of a prompt, about; calibrated with the server.")
    add("--output-tokens", type=int, default=64, help="Length of an answer: equal for all (max_tokens, ignore_eos).")
    add("--stop-at-end", action="store_true", default=False, help="Let answers end by themselves (no ignore_eos).")
    add("--concurrency", type=int, default=8, include_in_web_ui=False, help="Closed loop: requests in flight (as -u).")
    add("--rate", type=float, default=0.0, help="Open loop: requests a second, on a schedule; 0: closed loop.")
    add("--arrivals", choices=list(ARRIVALS), default="poisson", help="Open loop: when requests are sent.")
    add("--max-in-flight", type=int, default=512, help="Open loop: more are dropped, and counted.")
    add("--requests", type=int, default=0, help="End after that many measured requests; 0: only --run-time ends it.")
    add("--seed", type=int, default=1, help="Decides prompts, mix and arrivals.")
    add("--salt", default="", help="Other prompts of equal lengths for another trial; default: a new one each run.")
    add("--warm-up", type=float, default=0.0, metavar="SECONDS", help="Load before the measured window.")
    add("--api-key", default="", is_secret=True, env_var="WATTGATE_API_KEY", help="Key for the gateway.")
    add("--control", default="", metavar="URL", help="Control API (http://127.0.0.1:8081), to read joules from.")
    add("--output", default="", metavar="DIR", help="Where results go; default: runs/load-TIME.")


def set_user_count(options: Namespace) -> None:
    """Locust's users, where nobody gave their number: one a connection in closed loop, one a process in open loop."""
    if options.num_users is None:
        options.num_users = options.concurrency if options.rate <= 0 else max(1, options.expect_workers or 1)
    if options.spawn_rate is None:
        options.spawn_rate = min(100, max(1, options.num_users))
