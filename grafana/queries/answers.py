"""PromQL that answers instead of showing: the first of a ranking, and how far it is ahead."""

from __future__ import annotations

from grafana.queries.query import BY_CONFIGURATION, ENGINE, Query, legend, max_by

__all__ = ["least", "lost_quality", "saving"]


def least(query: Query) -> Query:
    """The configuration with the smallest value."""
    return Query(expr=f"bottomk(1, {query.expr})", legend=query.legend)


def saving(query: Query) -> Query:
    """1 less the smallest value over the largest."""
    return Query(expr=f"1 - min({query.expr}) / max({query.expr})", legend="less")


def lost_quality() -> Query:
    """Perplexity over the reference's, less 1."""
    ratio = max_by(BY_CONFIGURATION, f"wattgate_quality_perplexity_ratio{{{ENGINE}}}")
    return Query(expr=f"{ratio} - 1", legend=legend(BY_CONFIGURATION))
