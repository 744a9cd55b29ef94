"""Reads PLAN.yaml."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Final

from loadgen._compare._document import Section, read_document
from loadgen._compare._metrics import DEFAULT_METRICS, METRICS
from loadgen._compare._plan import Blocks, ComparePlan, Configuration, Load, Target
from loadgen._errors import LoadError
from loadgen._slo import Slo

__all__ = ["FEWEST_BLOCKS", "read_plan"]

FEWEST_BLOCKS: Final = 8
"""With five a sign test cannot reach 0.05, and a t-interval has to believe in five draws."""
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,31}")
_WHERE: Final = frozenset({"host", "control", "models", "output", "api-key", "control-token"})
_WHAT: Final = frozenset({"concurrency", "rate", "users", "seed", "salt", "warm-up", "run-time", "requests", "slo"})
_OURS: Final = _WHERE | _WHAT | {"headless", "find-saturation", "loglevel", "only-summary"}
"""Options that compare gives to Locust itself."""


def read_plan(file: Path) -> ComparePlan:
    """Raises `PlanError` with key and line."""
    root = read_document(file)
    target = _target(root, file)
    configurations = _configurations(root, target)
    plan = ComparePlan(
        target=target,
        configurations=configurations,
        load=_load(root.section("load"), file),
        blocks=_blocks(root.section("blocks")),
        metrics=_metrics(root),
        margin=root.number("margin", 0.05, above=0),
        confidence=root.number("confidence", 0.95, above=0.5),
        seed=root.whole("seed", 1),
        output=_path(file, root.text("output")) if "output" in root else None,
    )
    root.whole("version", 1, lowest=1)
    root.text("output", "-")
    if plan.confidence >= 1:
        raise root.error(f"must be below 1, not {plan.confidence:g}", "confidence")
    if plan.margin > 0.5:
        raise root.error(f"is a part of 1: 0.05 means ± 5 %, not {plan.margin:g}", "margin")
    if "goodput" in plan.metrics and not plan.load.slo:
        raise root.error("has goodput, which needs load.slo", "metrics")
    root.close()
    return plan


def _path(file: Path, text: str) -> Path:
    return (file.resolve().parent / Path(text).expanduser()).resolve()


def _target(root: Section, file: Path) -> Target:
    config = _path(file, root.text("config")) if "config" in root else None
    root.text("config", "-")
    if config is not None and not config.is_file():
        raise root.error(f"names {config}, which does not exist", "config")
    host = root.text("host", "-").rstrip("/").removesuffix("/v1")
    control = root.text("control", "-").rstrip("/")
    for key, value in (("host", host), ("control", control)):
        if key in root and config is not None:
            raise root.error("stands beside config; either compare starts a gateway, or there is one", key)
        if key in root and not value.startswith(("http://", "https://")):
            raise root.error("must start with http:// or https://", key)
    if config is None and "host" not in root:
        raise root.error("needs host (a running gateway) or config (a configuration to start one with)")
    return Target(host=host if "host" in root else None, control=control if "control" in root else None, config=config)


def _configurations(root: Section, target: Target) -> tuple[Configuration, ...]:
    section = root.section("configurations")
    found = []
    for name, entry in section.sections():
        if not _NAME.fullmatch(name):
            raise section.error("is no name: letters, digits, . _ + -, at most 32", name)
        found.append(
            Configuration(name=name, model=entry.text("model"), engine_options=entry.mapping("engine_options"))
        )
        if "engine_options" in entry and target.config is None:
            raise entry.error("need config: compare can only restart engines of a gateway it starts", "engine_options")
        entry.close()
    if len(found) < 2:
        raise section.error("must be at least two, or there is nothing to compare")
    reference = root.text("reference", found[0].name)
    if reference not in {one.name for one in found}:
        raise root.error(f"names {reference!r}, which is none of {', '.join(one.name for one in found)}", "reference")
    return tuple(sorted(found, key=lambda one: one.name != reference))


def _load(section: Section, file: Path) -> Load:
    percent: tuple[float, ...] = ()
    rates: tuple[float, ...] = ()
    concurrency = 0
    if section.is_mapping("rates"):
        ladder = section.section("rates")
        percent, concurrency = ladder.numbers("percent_of_capacity"), ladder.whole("concurrency", 16, lowest=1)
        if not percent:
            raise ladder.error("needs percent_of_capacity, for instance [10, 40, 70, 100, 120]")
        ladder.close()
    else:
        rates = section.numbers("rates")
    closed = section.numbers("closed", above=0)
    if any(value % 1 for value in closed):
        raise section.error("are whole numbers of requests in flight", "closed")
    load = Load(
        closed=closed,
        rates=rates,
        percent_of_capacity=percent,
        capacity_concurrency=concurrency,
        warm_up_s=section.number("warm_up_s", 1.0, above=-1e-9),
        run_time_s=section.whole("run_time_s", 10, lowest=1),
        requests=section.whole("requests", 0),
        slo=_slo(section),
        options=_options(section, file),
    )
    if not (closed or rates or percent):
        raise section.error("needs closed (requests in flight) or rates (requests a second), or both")
    if load.warm_up_s >= load.run_time_s:
        raise section.error(f"leaves nothing of run_time_s {load.run_time_s:g} to measure", "warm_up_s")
    section.close()
    return load


def _slo(section: Section) -> str:
    text = section.text("slo", "-") if "slo" in section else ""
    section.text("slo", "-")
    try:
        Slo.parse(text)
    except LoadError as exc:
        raise section.error(f"is wrong: {exc}", "slo") from exc
    return text


def _options(section: Section, file: Path) -> dict[str, Any]:
    """Options that name a file have its path relative to the plan."""
    options = section.mapping("options")
    for name, value in options.items():
        if name in _OURS or name.startswith("-"):
            raise section.error(f"has {name!r}: compare sets that one itself; write names without dashes", "options")
        if not isinstance(value, str | int | float | bool):
            raise section.error(f"has {name!r}, which must be a text, a number, or true", "options")
    return {name: str(_path(file, value)) if name == "workload-file" else value for name, value in options.items()}


def _blocks(section: Section) -> Blocks:
    at_least = section.whole("at_least", FEWEST_BLOCKS, lowest=FEWEST_BLOCKS)
    blocks = Blocks(
        at_least=at_least,
        at_most=section.whole("at_most", at_least, lowest=at_least),
        half_width=section.number("half_width", 0.0, above=-1e-9),
    )
    if blocks.at_most > blocks.at_least and blocks.half_width == 0:
        raise section.error("needs half_width beside it, or nothing says when more blocks are worth it", "at_most")
    section.close()
    return blocks


def _metrics(root: Section) -> tuple[str, ...]:
    metrics = root.texts("metrics") or DEFAULT_METRICS
    for name in metrics:
        if name not in METRICS:
            raise root.error(f"has {name!r}, which is none of {', '.join(METRICS)}", "metrics")
    return tuple(dict.fromkeys(metrics))
