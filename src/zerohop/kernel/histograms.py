"""The bounds of the kernel's histograms: Istio's, so that its dashboards fit, and finer ones for calls on one node."""

from __future__ import annotations

from typing import Final

# Envoy's default buckets, which Istio uses for milliseconds and for bytes alike.
ISTIO_BOUNDS: Final = (
    0.5, 1, 5, 10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 30_000, 60_000, 300_000, 600_000, 1_800_000,
    3_600_000,
)  # fmt: skip

_FINER_MS: Final = (0.01, 0.02, 0.03, 0.05, 0.07, 0.1, 0.15, 0.2, 0.3, 0.4, 0.7, 1.5, 2, 3, 7, 15)

DURATION_NS: Final = tuple(sorted(round(bound * 1_000_000) for bound in (*ISTIO_BOUNDS, *_FINER_MS)))

# Of the kernel's search: beyond every value (NO_BOUND in bpf/shared/bounds.h).
NO_BOUND: Final = (1 << 63) - 1

# Whole bytes: nothing is between 0 and 0.5.
SIZE_BYTES: Final = tuple(int(bound) for bound in ISTIO_BOUNDS)
