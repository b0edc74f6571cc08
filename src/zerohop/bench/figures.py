"""The arithmetic of the bench: percentiles, medians, ratios of neighbours in time. Pure functions."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

Figures = Mapping[str, float]
"""What one run measured: `p50_us`, `p99_us`, `per_second`, `cpu_us_per_op`; only what the workload has."""


def percentile(ordered: Sequence[float], percent: float) -> float:
    """The nearest-rank percentile of an ascending, non-empty sequence: always one of the samples."""
    if not ordered:
        raise ValueError("no samples")
    rank = -(-len(ordered) * percent // 100)
    return ordered[max(0, int(rank) - 1)]


def interquartile_range(values: Sequence[float]) -> float:
    """Third minus first quartile, linearly interpolated between samples; 0 for fewer than two values."""
    if len(values) < 2:
        return 0.0
    first, _, third = statistics.quantiles(values, n=4, method="inclusive")
    return third - first


def medians(rounds: Sequence[Figures]) -> dict[str, float]:
    """Each figure's median over the rounds that have it."""
    return {key: statistics.median(run[key] for run in rounds if key in run) for key in _keys(rounds)}


def round_ratios(mode: Sequence[Figures], baseline: Sequence[Figures]) -> dict[str, list[float]]:
    """Each figure's `mode / baseline`, round by round; without rounds whose baseline is 0 or missing."""
    ratios: dict[str, list[float]] = {}
    for key in _keys(mode):
        values = [
            run[key] / base[key]
            for run, base in zip(mode, baseline, strict=True)
            if key in run and base.get(key, 0) > 0
        ]
        if values:
            ratios[key] = values
    return ratios


def _keys(rounds: Sequence[Figures]) -> list[str]:
    return list(dict.fromkeys(key for run in rounds for key in run))
