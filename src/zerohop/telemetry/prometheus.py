"""Prometheus' text format, a piece at a time: the rows of calls are hundreds of thousands of lines.

https://prometheus.io/docs/instrumenting/exposition_formats/ (version 0.0.4)
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
from typing import Final

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

_ESCAPES: Final = str.maketrans({"\\": r"\\", "\n": r"\n", '"': r"\""})


def label_text(names: Iterable[str], values: Iterable[str]) -> str:
    """Labels as they stand between the braces of a sample."""
    return ",".join(f'{name}="{value.translate(_ESCAPES)}"' for name, value in zip(names, values, strict=True))


def number(value: float) -> str:
    """A bound as Envoy writes it: whole numbers without an exponent."""
    return str(int(value)) if value >= 1 and value == int(value) else f"{value:g}"


def _head(name: str, help_text: str, kind: str) -> str:
    return f"# HELP {name} {help_text}\n# TYPE {name} {kind}\n"


def counter(name: str, help_text: str, rows: Iterable[tuple[str, float]]) -> Iterator[str]:
    """`name` ends with `_total`; of each row the labels (`label_text`, none: empty) and the value."""
    return _scalar(name, help_text, "counter", rows)


def gauge(name: str, help_text: str, rows: Iterable[tuple[str, float]]) -> Iterator[str]:
    return _scalar(name, help_text, "gauge", rows)


def _scalar(name: str, help_text: str, kind: str, rows: Iterable[tuple[str, float]]) -> Iterator[str]:
    yield _head(name, help_text, kind)
    for labels, value in rows:
        yield f"{name}{{{labels}}} {value}\n" if labels else f"{name} {value}\n"


def histogram(
    name: str, help_text: str, bounds: Iterable[float], rows: Iterable[tuple[str, Sequence[int], float]]
) -> Iterator[str]:
    """Of each row the labels (not none), the values in each bucket, the last beyond `bounds`, and the sum of values."""
    yield _head(name, help_text, "histogram")
    ends = [f'{bound}"}} ' for bound in (*map(number, bounds), "+Inf")]
    for labels, counts, total in rows:
        begin = f'{name}_bucket{{{labels},le="'
        below = list(accumulate(counts))
        lines = [f"{begin}{end}{count}" for end, count in zip(ends, below, strict=True)]
        lines.append(f"{name}_sum{{{labels}}} {total}\n{name}_count{{{labels}}} {below[-1]}\n")
        yield "\n".join(lines)
