"""`wattgate key create|list|revoke`."""

from __future__ import annotations

import argparse
import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from rich.console import Console
from rich.table import Table

from server.cli.client import add_target, call
from server.clock import SystemClock
from server.config import load_config
from server.control.admin_keys import CreateKey, key_view
from server.control.keys import KeyKind, KeyStore, store_path
from server.errors import ConfigError

__all__ = ["add"]


def add(commands: Any) -> None:
    """Add the verb group `key`."""
    group = commands.add_parser(
        "key",
        help="create, list and revoke API keys",
        description="Of a running gateway by its control plane; with --config also while none runs.",
    )
    verbs = group.add_subparsers(dest="verb", metavar="VERB", required=True)
    create = verbs.add_parser("create", help="make a key; its secret is shown once")
    _add_options(create)
    create.set_defaults(run=_create)
    listing = verbs.add_parser("list", help="all keys that were ever made; never their secrets")
    listing.set_defaults(run=_list)
    revoke = verbs.add_parser("revoke", help="from now on the key opens nothing")
    revoke.add_argument("id", help="as `wattgate key list` shows it")
    revoke.set_defaults(run=_revoke)
    for verb in (create, listing, revoke):
        verb.add_argument("--json", action="store_true", help="as JSON")
        add_target(verb)


def _add_options(create: argparse.ArgumentParser) -> None:
    kind = create.add_mutually_exclusive_group()
    kind.add_argument("--admin", action="store_true", help="a key for the control port, not for the gateway")
    kind.add_argument("--metrics", action="store_true", help="a key that reads /metrics on the control port")
    create.add_argument("--tenant", default="default", metavar="NAME", help="who is served (default: %(default)s)")
    create.add_argument("--models", metavar="A,B", help="the ids that the key may ask for, literally; default: all")
    create.add_argument("--requests-per-minute", type=int, metavar="N")
    create.add_argument("--tokens-per-minute", type=int, metavar="N", help="prompt and output together")
    create.add_argument("--concurrency", type=int, metavar="N", help="requests at the same time")
    create.add_argument("--priority", type=int, default=0, metavar="N", help="lower goes first (default: %(default)s)")
    create.add_argument("--expires", type=float, metavar="DAYS", help="default: never")


def _create(arguments: argparse.Namespace) -> int:
    wanted = _wanted(arguments)
    with _store(arguments) as store:
        if store is None:
            made = call(arguments, "POST", "/api/keys", wanted.model_dump(mode="json"))
        else:
            key, secret = store.create(wanted.wanted())
            made = {**key_view(key, SystemClock().wall()), "secret": secret}
    if arguments.json:
        print(json.dumps(made, indent=2))
    else:
        print(f"{made['secret']}\n\n{made['id']}: a key of kind {made['kind']}. It is shown this once: keep it now.")
    return 0


def _wanted(arguments: argparse.Namespace) -> CreateKey:
    kind = KeyKind.ADMIN if arguments.admin else KeyKind.METRICS if arguments.metrics else KeyKind.CLIENT
    models = None if arguments.models is None else [name for name in arguments.models.split(",") if name]
    try:
        return CreateKey(
            kind=kind,
            tenant=arguments.tenant,
            models=models,
            priority=arguments.priority,
            requests_per_minute=arguments.requests_per_minute,
            tokens_per_minute=arguments.tokens_per_minute,
            concurrency=arguments.concurrency,
            expires_in_days=arguments.expires,
        )
    except ValidationError as exc:
        problems = (f"{'.'.join(map(str, error['loc']))}: {error['msg']}" for error in exc.errors())
        raise ConfigError("the key cannot be made as wanted: " + "; ".join(problems)) from exc


def _list(arguments: argparse.Namespace) -> int:
    with _store(arguments) as store:
        if store is None:
            keys = call(arguments, "GET", "/api/keys")["keys"]
        else:
            keys = [key_view(key, SystemClock().wall()) for key in store.listed()]
    if arguments.json:
        print(json.dumps(keys, indent=2))
    else:
        _show(keys)
    return 0


def _revoke(arguments: argparse.Namespace) -> int:
    with _store(arguments) as store:
        if store is None:
            revoked = call(arguments, "DELETE", "/api/keys", {"id": arguments.id})
        else:
            revoked = key_view(store.revoke(arguments.id), SystemClock().wall())
    print(json.dumps(revoked, indent=2) if arguments.json else f"{arguments.id}: revoked")
    return 0


@contextmanager
def _store(arguments: argparse.Namespace) -> Iterator[KeyStore | None]:
    """The store itself while no gateway runs on it, and none can start; else None: ask the control plane."""
    if arguments.config is None:
        yield None
        return
    state_dir = load_config(arguments.config).state_dir
    with _locked(state_dir) as free:
        yield KeyStore(store_path(state_dir), SystemClock()) if free else None


@contextmanager
def _locked(state_dir: Path) -> Iterator[bool]:
    """Hold the lock that a running gateway holds; False: one runs."""
    state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    descriptor = os.open(state_dir / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield False
        else:
            yield True
    finally:
        os.close(descriptor)


def _show(keys: list[dict[str, Any]]) -> None:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("id", "key", "kind", "tenant", "models", "limits", "expires", "state"):
        table.add_column(title, no_wrap=title in {"id", "key", "kind", "expires", "state"})
    for key in keys:
        table.add_row(
            key["id"],
            f"{key['prefix']}…",
            key["kind"],
            key["tenant"],
            ", ".join(key["models"]) if key["models"] else "all",
            _limits(key),
            _day(key["expires"]) if key["expires"] else "never",
            key["state"],
        )
    Console().print(table if keys else "no keys")


def _limits(key: dict[str, Any]) -> str:
    units = {"requests_per_minute": "requests/min", "tokens_per_minute": "tokens/min", "concurrency": "at a time"}
    return ", ".join(f"{key[name]:,} {unit}" for name, unit in units.items() if key[name]) or "none"


def _day(at: float) -> str:
    return datetime.fromtimestamp(at).astimezone().strftime("%Y-%m-%d")
