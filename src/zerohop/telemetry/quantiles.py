"""Quantiles of a histogram: linear inside a bucket, as Prometheus' histogram_quantile has it."""

from __future__ import annotations

from collections.abc import Sequence

from zerohop.kernel.histograms import DURATION_NS


def duration_ns(counts: Sequence[int], share: float) -> float | None:
    """The duration below which that share of the calls lies, in nanoseconds; None without calls.

    `counts`: calls by bucket of `DURATION_NS`, the last beyond every bound: there the last bound is all that is known.
    """
    total = sum(counts)
    if not total:
        return None
    rank = share * total
    below = 0
    for index, count in enumerate(counts):
        if count and below + count >= rank:
            if index == len(DURATION_NS):
                return float(DURATION_NS[-1])
            lower = DURATION_NS[index - 1] if index else 0
            return lower + (DURATION_NS[index] - lower) * max(0.0, rank - below) / count
        below += count
    return float(DURATION_NS[-1])
