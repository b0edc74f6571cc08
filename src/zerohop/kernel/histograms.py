"""The bounds of the kernel's histograms: Istio's, so that its dashboards fit, and finer ones for calls on one node."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import Any, Final

# Envoy's default buckets, which Istio uses for milliseconds and for bytes alike.
ISTIO_BOUNDS: Final = (
    0.5, 1, 5, 10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 30_000, 60_000, 300_000, 600_000, 1_800_000,
    3_600_000,
)  # fmt: skip

_FINER_MS: Final = (0.01, 0.02, 0.03, 0.05, 0.07, 0.1, 0.15, 0.2, 0.3, 0.4, 0.7, 1.5, 2, 3, 7, 15)

DURATION_NS: Final = tuple(sorted(round(bound * 1_000_000) for bound in (*ISTIO_BOUNDS, *_FINER_MS)))

# Width of the kernel's cells (DURATION_CELL_BITS in bpf/shared/bounds.h); there is one bound in a cell at most.
CELL_NS: Final = 1 << 12

# Beyond every value (NO_BOUND there).
_NO_BOUND: Final = (1 << 63) - 1

# Whole bytes: nothing is between 0 and 0.5.
SIZE_BYTES: Final = tuple(int(bound) for bound in ISTIO_BOUNDS)


def fill_bounds(bounds: Any, known: Sequence[int], cells: Any, width: int) -> None:
    """The arrays of `struct buckets`: bounds, and for values that are small the bucket of each cell's first one."""
    bounds[:] = (*known, *(_NO_BOUND for _ in range(len(bounds) - len(known))))
    cells[:] = [bisect_left(known, cell * width) for cell in range(len(cells))]
