"""Talks to a running control plane on behalf of a command."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import httpx

from server.config import load_config, origin
from server.config.secrets import ADMIN_KEY, admin_key
from server.errors import StartError, WattgateError

__all__ = ["add_target", "call"]

_TIMEOUT_S = 120.0
"""Loading an adapter on every replica can take a while."""

_ANY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104  # no address to call


def add_target(parser: argparse.ArgumentParser) -> None:
    """Where the control plane is (by its configuration file, or by its URL), and the key for it."""
    target = parser.add_mutually_exclusive_group()
    target.add_argument("--config", type=Path, metavar="FILE", help="the configuration file of the running gateway")
    target.add_argument("--control", default="http://127.0.0.1:8081", metavar="URL", help="default: %(default)s")
    parser.add_argument(
        "--admin-key",
        metavar="KEY",
        help=f"for the control plane; better in the environment variable {ADMIN_KEY}: lists of processes show this",
    )


def call(arguments: argparse.Namespace, method: str, path: str, body: Any = None) -> Any:
    """One request to the admin API; returns its JSON.

    Raises `StartError` if nobody answers and `WattgateError` with the API's own words if it refuses.
    """
    url = arguments.control
    if arguments.config is not None:
        control = load_config(arguments.config).control
        url = origin(_ANY_ADDRESS.get(control.host, control.host), control.port)
    key = arguments.admin_key or admin_key()
    headers = {} if key is None else {"authorization": f"Bearer {key}"}
    try:
        answer = httpx.request(method, url + path, json=body, headers=headers, timeout=_TIMEOUT_S, trust_env=False)
    except (httpx.HTTPError, httpx.InvalidURL, UnicodeEncodeError) as exc:
        raise StartError(
            f"no control plane answers at {url} ({exc}). "
            "Start one (wattgate up --config FILE) or name it (--control URL)."
        ) from exc
    if answer.is_error:
        raise WattgateError(_message(answer))
    try:
        return answer.json()
    except ValueError as exc:
        raise WattgateError(
            f"{url} answers, but it is no Wattgate control plane. Name another: --control URL."
        ) from exc


def _message(answer: httpx.Response) -> str:
    try:
        return str(answer.json()["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return f"{answer.request.url} answered {answer.status_code}: {answer.text[:300]}"
