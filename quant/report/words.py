"""Numbers as people read them; what is unknown is a dash."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from quant.report.losses import Compression
from server.models.quality import Quality

__all__ = ["UNKNOWN", "change", "digits", "duration", "energy", "megabytes", "rate", "span", "title_of"]

UNKNOWN: Final = "—"
_TITLES: Final[Mapping[str, str]] = {
    "perplexity": "perplexity",
    "perplexity_ratio": "perplexity / reference's",
    "nll_change_nats": "NLL change, nats",
    "kl_nats": "KL, nats/token",
    "top1_agreement_ratio": "top-1 agreement",
    "flips_ratio": "flips",
    "right_to_wrong_ratio": "right → wrong",
    "wrong_to_right_ratio": "wrong → right",
    "net_flips_ratio": "net flips",
}


def title_of(metric: str) -> str:
    """For people."""
    if metric.startswith("kl_top"):
        return f"KL ≥ (top {metric.removeprefix('kl_top').removesuffix('_nats')}), nats"
    return _TITLES.get(metric, metric)


def digits(value: float | None, places: int = 4) -> str:
    """That many significant digits."""
    return UNKNOWN if value is None else f"{value:.{places}g}"


def span(quality: Quality | None, places: int = 3) -> str:
    """A value and its interval: `0.0556 [0.0519, 0.0592]`."""
    if quality is None:
        return UNKNOWN
    if quality.interval is None:
        return digits(quality.value, places)
    low, high = quality.interval
    return f"{digits(quality.value, places)} [{digits(low, places)}, {digits(high, places)}]"


def change(ratio: Quality | None) -> str:
    """A ratio as per cent above 1: `+0.71 % [+0.01, +1.43]`."""
    if ratio is None:
        return UNKNOWN
    shown = f"{100 * (ratio.value - 1):+.2f} %"
    if ratio.interval is None:
        return shown
    low, high = (100 * (bound - 1) for bound in ratio.interval)
    return f"{shown} [{low:+.2f}, {high:+.2f}]"


def rate(compression: Compression | None) -> str:
    """MCR and its interval."""
    if compression is None:
        return UNKNOWN
    if compression.interval is None:
        return f"{compression.value:.2f}"
    low, high = compression.interval
    return f"{compression.value:.2f} [{low:.2f}, {high:.2f}]"


def megabytes(size: float | None) -> str:
    """MB, or GB from 1000 of them."""
    if size is None:
        return UNKNOWN
    return f"{size / 1e6:.2f} MB" if size < 1e9 else f"{size / 1e9:.2f} GB"


def duration(seconds: float | None) -> str:
    """Seconds, or minutes from 120 of them."""
    if seconds is None:
        return UNKNOWN
    return f"{seconds:.3g} s" if seconds < 120 else f"{seconds / 60:.1f} min"


def energy(joules: float | None) -> str:
    """Joules, or kJ from 10,000 of them."""
    if joules is None:
        return UNKNOWN
    return f"{joules:.3g} J" if joules < 1e4 else f"{joules / 1e3:.1f} kJ"
