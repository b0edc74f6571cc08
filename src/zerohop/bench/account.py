"""What an instance's kernel side counted: calls that the engine read, and the time that the hooks took."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self

from zerohop.bench.signals import ending_signals_held
from zerohop.errors import ZerohopError
from zerohop.kernel import libbpf
from zerohop.kernel.datapath import DataPath
from zerohop.kernel.telemetry import read_calls, read_reading

HOOKS: Final = ("zerohop_sender", "zerohop_receiver")
"""The programs that see a connection's bytes."""

_BPF_STATS_RUN_TIME: Final = 0


@dataclass(frozen=True)
class HookTime:
    """How often a program ran, and the nanoseconds it took, while the kernel measured that."""

    runs: int
    ns: int

    @property
    def ns_per_run(self) -> float:
        return self.ns / self.runs if self.runs else 0.0

    def __sub__(self, other: HookTime) -> HookTime:
        return HookTime(self.runs - other.runs, self.ns - other.ns)


@dataclass(frozen=True)
class HookCost:
    """What `calls` calls of `frames` HTTP/2 frames each, both ways together, took in each program of `HOOKS`."""

    calls: int
    frames: int
    hooks: Mapping[str, HookTime]

    @property
    def ns_per_call(self) -> float:
        return sum(hook.ns for hook in self.hooks.values()) / self.calls


@dataclass(frozen=True)
class Counts:
    """`calls`: complete ones, by protocol and status, as in `grpc 0` and `http2 200`; `unread`: connections on
    layer-7 ports that the engine does not read, by reason."""

    calls: Mapping[str, int]
    unread: Mapping[str, int]

    def since(self, before: Counts) -> Counts:
        return Counts(_difference(self.calls, before.calls), _difference(self.unread, before.unread))


def require_calls(counted: Counts, wanted: str, made: int) -> None:
    """Raises `ZerohopError` unless exactly `made` calls were counted, all of them as `wanted`."""
    if counted.calls != {wanted: made}:
        raise _miscounted(counted, f"{made} calls", wanted)


def require_at_least(counted: Counts, wanted: str, made: int) -> None:
    """Raises `ZerohopError` unless at least `made` calls were counted as `wanted`.

    For a run whose client only counts what falls into its measured interval.
    """
    if counted.calls.get(wanted, 0) < max(1, made):
        raise _miscounted(counted, f"at least {max(1, made)} calls", wanted)


def require_none(counted: Counts) -> None:
    """Raises `ZerohopError` if calls were counted: then the engine was on."""
    if counted.calls:
        raise ZerohopError(f"the engine is off here, and counted calls all the same: {dict(counted.calls)}")


def require_decided(flows: Iterable[Mapping[str, Any]], policy: str, rule: int) -> None:
    """Raises `ZerohopError` unless this rule allowed all calls of these flow records, of which there are some."""
    deciders = Counter((flow["verdict"], flow["policy"], flow["rule"]) for flow in flows)
    if deciders.keys() != {("ALLOW", policy, rule)}:
        found = {f"{verdict} {name} {number}": count for (verdict, name, number), count in deciders.items()}
        raise ZerohopError(
            f"the calls should have been allowed by rule {rule} of {policy}, but were judged otherwise: "
            f"{found or 'no flow record'}",
            hint="run zerohop doctor",
        )


def require_refused(flows: Iterable[Mapping[str, Any]]) -> None:
    """Raises `ZerohopError` unless no rule allowed any of the calls of these flow records, of which there are some."""
    verdicts = Counter((flow["method"], flow["verdict"], flow["policy"]) for flow in flows)
    if {(verdict, policy) for _, verdict, policy in verdicts} != {("DENY", None)}:
        found = {f"{method} {verdict}": count for (method, verdict, _), count in verdicts.items()}
        raise ZerohopError(
            f"calls that no rule allows should have been refused, but were judged otherwise: {found or 'no record'}",
            hint="run zerohop doctor",
        )


def _miscounted(counted: Counts, made: str, wanted: str) -> ZerohopError:
    return ZerohopError(
        f"the client made {made} ({wanted}), but the engine counted {dict(counted.calls) or 'none'}, so the figures "
        f"would not be those of an engine at work; connections left unread: {dict(counted.unread) or 'none counted'}",
        hint="run zerohop doctor",
    )


def _difference(after: Mapping[str, int], before: Mapping[str, int]) -> dict[str, int]:
    return {key: count - before.get(key, 0) for key, count in after.items() if count != before.get(key, 0)}


class Account:
    """Reads the pins of an instance; close it before the instance is cleaned up."""

    def __init__(self, instance: str) -> None:
        self._path = DataPath.open(instance)

    def counts(self) -> Counts:
        calls: Counter[str] = Counter()
        for row in read_calls(self._path):
            if row.ending == "complete":
                status = row.http_status if row.grpc_status is None else row.grpc_status
                calls[f"{row.protocol} {status}"] += row.calls
        return Counts(calls, read_reading(self._path).unread)

    def policies(self) -> int:
        """The generation of policies that the kernel judges by."""
        return int(self._path.settings().policies)

    def hook_times(self) -> dict[str, HookTime]:
        """Only grows while `hook_times_measured`."""
        times = {}
        for name in HOOKS:
            info = libbpf.program_info(self._path.programs[name])
            times[name] = HookTime(info.run_cnt, info.run_time_ns)
        return times

    def close(self) -> None:
        self._path.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


@contextmanager
def hook_times_measured() -> Iterator[None]:
    """The kernel measures every BPF program's run time for the block (kernel.bpf_stats_enabled).

    By a descriptor, not by the sysctl: the kernel stops by itself when it is closed, however the bench ends.
    """
    with ending_signals_held():
        fd = libbpf.call("measuring run times", "bpf_enable_stats", _BPF_STATS_RUN_TIME)
    try:
        yield
    finally:
        os.close(fd)
