"""What the options ask for, as one checked value."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from loadgen._arrivals import TRACE, arrival_process
from loadgen._errors import LoadError

__all__ = ["DEFAULT_ARRIVALS", "DEFAULT_HOST", "HORIZON_S", "Plan"]

DEFAULT_HOST: Final = "http://127.0.0.1:8080"
DEFAULT_ARRIVALS: Final = "poisson"
HORIZON_S: Final = 3600.0
"""Length of an open-loop schedule when no --run-time says another."""
_SECRETS: Final = ("api_key", "control_token")


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """One load test."""

    host: str
    models: str
    workload: str
    workload_options: str
    workload_file: str
    mix_adapters: str
    prompt_tokens: int
    output_tokens: int
    stop_at_end: bool
    stream: bool
    concurrency: int
    """Closed loop: requests that are always in flight."""
    rate: float
    """Open loop: requests a second; 0 is closed loop, but for a trace, which then keeps its own times."""
    arrivals: str
    arrivals_options: str
    requests: int
    """End after that many measured requests; 0 is no such end."""
    seed: int
    salt: str
    slo: str
    """As written; empty: none."""
    warm_up_s: float
    max_in_flight: int
    output: str
    control: str
    run_time_s: float | None
    api_key: str = field(default="", repr=False)
    control_token: str = field(default="", repr=False)

    @property
    def open_loop(self) -> bool:
        return self.rate > 0 or self.arrivals == TRACE

    @property
    def horizon_s(self) -> float:
        return self.run_time_s or HORIZON_S

    def to_json(self) -> dict[str, Any]:
        """Everything but the keys."""
        return {name: value for name, value in asdict(self).items() if name not in _SECRETS}

    def secrets(self) -> dict[str, str]:
        """What `to_json` leaves out: for the workers, never for a file."""
        return {name: getattr(self, name) for name in _SECRETS}

    @classmethod
    def of(cls, options: Namespace, *, host: str | None, fresh_salt: Callable[[], str]) -> Plan:
        """Raises `LoadError` naming the option that is wrong."""
        plan = cls(
            host=(host or DEFAULT_HOST).rstrip("/").removesuffix("/v1"),
            models=options.models,
            workload=options.workload,
            workload_options=options.workload_options,
            workload_file=options.workload_file,
            mix_adapters=options.mix_adapters,
            prompt_tokens=options.prompt_tokens,
            output_tokens=options.output_tokens,
            stop_at_end=options.stop_at_end,
            stream=not options.no_stream,
            concurrency=options.num_users or options.concurrency,
            rate=options.rate,
            arrivals=options.arrivals,
            arrivals_options=options.arrivals_options,
            requests=options.requests,
            seed=options.seed,
            salt=options.salt or fresh_salt(),
            slo=options.slo,
            warm_up_s=options.warm_up,
            max_in_flight=options.max_in_flight,
            output=options.output,
            control=options.control.rstrip("/"),
            run_time_s=float(options.run_time) if options.run_time else None,
            api_key=options.api_key,
            control_token=options.control_token,
        )
        _check_texts(plan)
        _check_numbers(plan)
        _check_arrivals(plan)
        return plan


def _check_texts(plan: Plan) -> None:
    if not plan.host.startswith(("http://", "https://")):
        raise LoadError(f"--host {plan.host!r} must start with http:// or https://.")
    for option, text in (("--salt", plan.salt), ("--api-key", plan.api_key), ("--control-token", plan.control_token)):
        # They stand in headers.
        if not (text.isascii() and text.isprintable()) or " " in text:
            raise LoadError(f"{option} must be printable ASCII without spaces.")


def _check_numbers(plan: Plan) -> None:
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
        if not lowest <= value < float("inf"):
            raise LoadError(f"{option} is {value}; it must be at least {lowest}.")
    if plan.run_time_s is not None and plan.warm_up_s >= plan.run_time_s:
        raise LoadError(
            f"--warm-up {plan.warm_up_s:g} s leaves nothing of --run-time {plan.run_time_s:g} s to measure."
        )


def _check_arrivals(plan: Plan) -> None:
    """The schedule itself is made later: only then a trace's file has been read."""
    arrival_process(plan.arrivals, plan.arrivals_options)
    if not plan.open_loop and (plan.arrivals != DEFAULT_ARRIVALS or plan.arrivals_options):
        raise LoadError(
            f"--arrivals {plan.arrivals} is for open loop: give --rate too. Without --rate, --concurrency requests are "
            "always in flight (closed loop) and nothing has an arrival time."
        )
