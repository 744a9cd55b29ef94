"""`python -m grafana`: generate and check files; push and diff against a running Grafana."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from grafana.generate import DASHBOARDS, RULE_FILES, differences, generate
from grafana.push import (
    LOWEST_VERSION,
    PushError,
    Target,
    annotate,
    apply,
    changes,
    read_runs,
    unknown_runs,
    wanted,
)

__all__ = ["main"]

_ENVIRONMENT = """\
environment:
  GRAFANA_URL                     where it is, if --url does not say so
  GRAFANA_TOKEN                   a service account's token; or
  GRAFANA_USER, GRAFANA_PASSWORD  a name and its password
  WATTGATE_METRICS_TOKEN          for --control, if the control port asks for one
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Status 0: done, or nothing differs; 1: something differs; 2: wrong arguments, or Grafana does not do it."""
    chosen = _parser().parse_args(arguments)
    try:
        return int(chosen.run(chosen))
    except PushError as exc:
        print(f"wattgate: {exc}", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="wattgate grafana", description="Dashboards, rules and alerts as code.")
    parser.add_argument("--folder", type=Path, default=DASHBOARDS, help="where the JSON lies (default: %(default)s)")
    parser.add_argument("--rules", type=Path, default=RULE_FILES, help="where the rules lie (default: %(default)s)")
    commands = parser.add_subparsers(dest="command", required=True)
    made = commands.add_parser("generate", help="write the JSON of every dashboard and the YAML of all rules")
    made.set_defaults(run=_generate)
    checked = commands.add_parser("check", help="compare the files with their source; status 1 if they differ")
    checked.set_defaults(run=_check)
    pushed = _add_talking(commands, "push", "make a running Grafana have what the source says; again and again")
    pushed.add_argument("--dry-run", action="store_true", help="say what would be done, and do nothing")
    pushed.add_argument("--control", metavar="URL", help="control port: annotate the load runs that it knows")
    pushed.set_defaults(run=_push)
    compared = _add_talking(commands, "diff", "compare a running Grafana with the source; status 1 if it differs")
    compared.set_defaults(run=_diff)
    return parser


def _add_talking(commands: Any, name: str, summary: str) -> Any:
    """A command that talks to a running Grafana."""
    parser = commands.add_parser(
        name, help=summary, epilog=_ENVIRONMENT, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    lowest = ".".join(map(str, LOWEST_VERSION))
    parser.add_argument("--url", help=f"of Grafana, {lowest} or newer")
    parser.add_argument(
        "--prometheus",
        metavar="URL",
        help="as Grafana reaches it: makes the data source, and alert rules that ask it; without it neither is touched",
    )
    parser.add_argument("--interval", default="15s", help="Prometheus' scrape interval (default: %(default)s)")
    parser.add_argument("--no-alerts", action="store_true", help="leave alerting to Prometheus' own rules")
    return parser


def _generate(chosen: argparse.Namespace) -> int:
    for path in generate(chosen.folder, chosen.rules):
        print(f"wrote {path}")
    return 0


def _check(chosen: argparse.Namespace) -> int:
    found = differences(chosen.folder, chosen.rules)
    if not found:
        return 0
    print("\n".join(found), file=sys.stderr)
    print("Dashboards or rules differ from their source: run `python -m grafana generate`.", file=sys.stderr)
    return 1


def _push(chosen: argparse.Namespace) -> int:
    target = Target.of(chosen.url)
    api = target.connect()
    for change in changes(api, target, _wanted(chosen)):
        print(change)
        if not chosen.dry_run:
            apply(api, target, change)
    if chosen.control:
        token = os.environ.get("WATTGATE_METRICS_TOKEN")  # noqa: TID251  # a secret comes by it
        runs = unknown_runs(api, target, read_runs(chosen.control, token))
        for run in () if chosen.dry_run else runs:
            annotate(api, target, run)
        print(f"create  {len(runs)} annotations of load runs")
    return 0


def _diff(chosen: argparse.Namespace) -> int:
    target = Target.of(chosen.url)
    found = changes(target.connect(), target, _wanted(chosen))
    for change in found:
        print(change)
    return int(any(change.action != "none" for change in found))


def _wanted(chosen: argparse.Namespace) -> Any:
    return wanted(chosen.prometheus, interval=chosen.interval, alerts=not chosen.no_alerts)


if __name__ == "__main__":
    sys.exit(main())
