"""PromQL of what configurations do and cost.

A query is built from what it means (`joules_per_output_token(...)`), so that a metric or a label changes in one place.
"""

from __future__ import annotations

from collections.abc import Sequence

from grafana.queries.query import (
    BY_CONFIGURATION,
    ENGINE,
    ENGINE_STATES,
    FAILED,
    RATE_WINDOW,
    Query,
    legend,
    max_by,
    of_configuration,
    output_tokens,
    rate,
    sum_by,
)

__all__ = [
    "adapter_values",
    "engine_facts",
    "engine_state_code",
    "engine_values",
    "error_ratio",
    "joules_per_output_token",
    "memory_by_kind",
    "memory_of_replica",
    "meter_watts",
    "model_bits_per_weight",
    "model_facts",
    "model_size",
    "model_values",
    "output_tokens_per_second",
    "quantile",
    "refused_ratio",
    "requests_per_second",
    "variant_values",
    "watts_by_account",
]


def quantile(histogram: str, q: float, *, window: str = RATE_WINDOW) -> Query:
    """The q-quantile of a latency histogram, a configuration; seconds."""
    buckets = sum_by(("le", *BY_CONFIGURATION), rate(f"{histogram}_bucket", window=window))
    return Query(
        expr=f"histogram_quantile({q}, {buckets})",
        legend=f"{legend(BY_CONFIGURATION)} p{q * 100:g}",
    )


def output_tokens_per_second(*, window: str = RATE_WINDOW) -> Query:
    """Output tokens per second of wall clock, all streams of a configuration together."""
    return of_configuration(output_tokens(BY_CONFIGURATION, window))


def requests_per_second(*, window: str = RATE_WINDOW) -> Query:
    """Ended requests per second, whatever their outcome."""
    return of_configuration(sum_by(BY_CONFIGURATION, rate("wattgate_requests_total", window=window)))


def error_ratio(*, window: str = RATE_WINDOW) -> Query:
    """The share of requests that the service failed; 0 where there were requests and none failed."""
    ended = sum_by(BY_CONFIGURATION, rate("wattgate_requests_total", window=window))
    failed = sum_by(BY_CONFIGURATION, rate("wattgate_requests_total", f'outcome=~"{FAILED}"', window=window))
    return of_configuration(f"({failed} or 0 * {ended}) / ({ended} > 0)")


def refused_ratio() -> Query:
    """The share of all requests that were refused before they were routed; nothing filters it."""
    refused = f'sum(rate(wattgate_requests_total{{variant="none",outcome=~"{FAILED}"}}[{RATE_WINDOW}]))'
    ended = f"sum(rate(wattgate_requests_total[{RATE_WINDOW}]))"
    return Query(expr=f"({refused} or vector(0)) / ({ended} > 0)", legend="refused before routing")


def joules_per_output_token(*, by: Sequence[str] = BY_CONFIGURATION, window: str = RATE_WINDOW) -> Query:
    """Joules of the active account over output tokens."""
    energy = sum_by(by, rate("wattgate_energy_joules_total", 'account="active"', window=window))
    return Query(expr=f"{energy} / ({output_tokens(by, window)} > 0)", legend=legend(by))


def watts_by_account() -> Query:
    """Attributed power by account, of everything: the variables do not filter it, or it would not reach the meter."""
    return Query(expr=f"sum by (account) (rate(wattgate_energy_joules_total[{RATE_WINDOW}]))", legend="{{account}}")


def meter_watts() -> Query:
    """What the meters themselves read, all devices together."""
    return Query(expr=f"sum(rate(wattgate_device_energy_joules_total[{RATE_WINDOW}]))", legend="meter")


def memory_by_kind() -> Query:
    """Memory of a configuration by kind, its replicas added up; bytes. The kinds overlap."""
    by = (*BY_CONFIGURATION, "kind")
    kinds = 'kind=~"weights|kv|resident|device_used"'
    return Query(expr=sum_by(by, f"wattgate_memory_bytes{{{ENGINE},{kinds}}}"), legend=legend(by))


def memory_of_replica() -> Query:
    """Memory that the largest replica of a configuration holds: the GPU's, else its processes'; bytes."""
    on_gpu = f'wattgate_memory_bytes{{{ENGINE},kind="device_used"}}'
    in_host = f'wattgate_memory_bytes{{{ENGINE},kind="resident"}}'
    return of_configuration(max_by(BY_CONFIGURATION, f"{on_gpu} or on (job, instance, engine) {in_host}"))


def model_facts() -> Query:
    """Weights of the model, with the precision and the quantization method as labels."""
    joined = f"on (job, instance, engine) group_left (quantization) wattgate_engine_info{{{ENGINE}}}"
    by = (*BY_CONFIGURATION, "precision", "quantization")
    return of_configuration(max_by(by, f"wattgate_model_parameters{{{ENGINE}}} * {joined}"))


def model_size() -> Query:
    """Weight files of the variant; bytes."""
    return of_configuration(max_by(BY_CONFIGURATION, f"wattgate_model_size_bytes{{{ENGINE}}}"))


def model_bits_per_weight() -> Query:
    """Bits a weight, over the whole file."""
    return of_configuration(f"8 * {max_by(BY_CONFIGURATION, f'wattgate_model_bytes_per_weight{{{ENGINE}}}')}")


def engine_facts() -> Query:
    """One series an engine, its facts as labels."""
    return Query(expr=f"wattgate_engine_info{{{ENGINE}}}", legend="{{engine}}")


def engine_state_code() -> Query:
    """The code (see `ENGINE_STATES`) of the state that each engine is in."""
    coded = " or ".join(
        f'wattgate_engine_state{{{ENGINE},state="{state}"}} * {code}'
        for code, state in enumerate(ENGINE_STATES, start=1)
    )
    return Query(expr=f"sum by (engine) ({coded})", legend="{{engine}}")


def model_values() -> str:
    """The choices of the variable `model`."""
    return "label_values(wattgate_engine_info, model)"


def variant_values() -> str:
    """The choices of the variable `variant`: those of the selected models."""
    return 'label_values(wattgate_engine_info{model=~"$model"}, variant)'


def engine_values() -> str:
    """The choices of the variable `engine`: those of the selected variants."""
    return 'label_values(wattgate_engine_info{model=~"$model",variant=~"$variant"}, engine)'


def adapter_values() -> str:
    """The choices of the variable `adapter`: those that had traffic; `none` is the base model alone."""
    return 'label_values(wattgate_requests_total{model=~"$model",variant=~"$variant"}, adapter)'
