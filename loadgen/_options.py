"""The options on Locust's parser and web page."""

from __future__ import annotations

from argparse import BooleanOptionalAction, Namespace
from typing import Any

from loadgen._arrivals import ARRIVALS, options_of
from loadgen._plan import DEFAULT_ARRIVALS
from loadgen._workloads import WORKLOADS

__all__ = ["add_options", "set_user_count"]


def add_options(parser: Any) -> None:
    """Put the options on Locust's parser.

    Not into a group: Locust's web page shows choices only for options that stand on the parser itself. No default is
    None: the page keeps an option's type from the value it had.
    """
    _add_workload(parser.add_argument)
    _add_arrivals(parser.add_argument)
    _add_run(parser.add_argument)
    # Locust would listen on every interface, and print a table of its own every two seconds.
    parser.set_defaults(web_host="127.0.0.1", only_summary=True)


def _add_workload(add: Any) -> None:
    add("--models", default="", metavar="ID=WEIGHT,…", help="Model mix; default: every id the server lists, equally.")
    add("--workload", choices=list(WORKLOADS), default="fixed", help="What is sent.")
    add("--workload-options", default="", metavar="NAME=VALUE,…", help="What the workload can be told.")
    add("--workload-file", default="", metavar="PATH", help="A JSONL or trace file, for the workloads that read one.")
    add("--mix-adapters", default="", metavar="TEXT", help="How requests are spread over adapters; default: --models.")
    add("--prompt-tokens", type=int, default=128, help="Length of a prompt, about; calibrated with the server.")
    add("--output-tokens", type=int, default=64, help="Length of an answer: equal for all (max_tokens, ignore_eos).")
    add("--stop-at-end", action="store_true", default=False, help="Let answers end by themselves (no ignore_eos).")
    add("--no-stream", action="store_true", default=False, help="Ask for whole answers: no first token is seen.")


def _add_arrivals(add: Any) -> None:
    add("--concurrency", type=int, default=8, include_in_web_ui=False, help="Closed loop: requests in flight (as -u).")
    add("--rate", type=float, default=0.0, help="Open loop: requests a second, on a schedule; 0: closed loop.")
    add("--arrivals", choices=list(ARRIVALS), default=DEFAULT_ARRIVALS, help="Open loop: when requests are sent.")
    add("--arrivals-options", default="", metavar="NAME=VALUE,…", help=f"Open loop: {_arrivals_options()}.")
    add("--max-in-flight", type=int, default=512, help="Open loop: more are dropped, and counted.")
    add(
        "--find-saturation",
        action=BooleanOptionalAction,
        default=False,
        include_in_web_ui=False,
        help="Raise --rate (or --concurrency) run by run until --slo or the rate fails; -t is the time of one run.",
    )


def _add_run(add: Any) -> None:
    add("--requests", type=int, default=0, help="End after that many measured requests; 0: only --run-time ends it.")
    add("--seed", type=int, default=1, help="Decides prompts, mix and arrivals.")
    add("--salt", default="", help="Other prompts of equal lengths for another trial; default: a new one each run.")
    add("--slo", default="", metavar="TEXT", help="What a good answer keeps: ttft=200ms,itl=50ms,e2e=2s.")
    add("--warm-up", type=float, default=0.0, metavar="SECONDS", help="Load before the measured window.")
    add("--api-key", default="", is_secret=True, env_var="WATTGATE_API_KEY", help="Key for the gateway.")
    add("--control", default="", metavar="URL", help="Control API (http://127.0.0.1:8081), to read joules from.")
    add("--control-token", default="", is_secret=True, env_var="WATTGATE_ADMIN_KEY", help="Key for the control API.")
    add("--output", default="", metavar="DIR", help="Where results go; default: runs/load-TIME.")


def _arrivals_options() -> str:
    """`gamma: shape=0.87`; …, of every process that has options."""
    told = {
        name: ", ".join(f"{of.name}={of.default:g}" for of in options_of(kind).values())
        for name, kind in ARRIVALS.items()
    }
    return "; ".join(f"{name}: {text}" for name, text in told.items() if text)


def set_user_count(options: Namespace) -> None:
    """Locust's users, where nobody gave their number: one a connection in closed loop, one a process in open loop."""
    if options.num_users is None:
        closed = options.rate <= 0 and options.arrivals == DEFAULT_ARRIVALS
        options.num_users = options.concurrency if closed else max(1, options.expect_workers or 1)
    if options.spawn_rate is None:
        options.spawn_rate = min(100, max(1, options.num_users))
