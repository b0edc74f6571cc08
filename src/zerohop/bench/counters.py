"""Counters of the kernel that a run is judged by: the machine's busy time and TCP's signs of trouble."""

from __future__ import annotations

import os
from dataclasses import dataclass, fields
from pathlib import Path
from types import TracebackType
from typing import Final, Self

TICKS_PER_SECOND: Final = os.sysconf("SC_CLK_TCK")

# Fields of the "cpu" line of /proc/stat (proc(5)). Busy is user, nice, system, irq and softirq; guest time is
# already part of user time, and what the hypervisor stole was nobody's work here.
_BUSY_FIELDS: Final = (0, 1, 2, 5, 6)


def busy_seconds(cpu_line: str) -> float:
    """Busy time of all CPUs since boot, in seconds, from the first line of /proc/stat."""
    name, *ticks = cpu_line.split()
    if name != "cpu" or len(ticks) <= max(_BUSY_FIELDS):
        raise ValueError(f"not the first line of /proc/stat: {cpu_line!r}")
    return sum(int(ticks[field]) for field in _BUSY_FIELDS) / TICKS_PER_SECOND


def cpu_us_per_operation(before: str, after: str, operations: int) -> float:
    """Busy microseconds per operation between two "cpu" lines of /proc/stat."""
    return (busy_seconds(after) - busy_seconds(before)) * 1e6 / operations


class BusyClock:
    """The busy time of all CPUs, read often: finer than the hundredths of a second of /proc/stat where it can be.

    The `cpu.stat` of cgroup v2's root is the same account (kernel/cgroup/rstat.c, root_cgroup_cputime) in microseconds.
    """

    def __init__(self, cgroup2: Path) -> None:
        """`cgroup2`: where the hierarchy is mounted."""
        # In a cgroup namespace it is not the root that is mounted, and any other cgroup has a type.
        root = (cgroup2 / "cpu.stat").exists() and not (cgroup2 / "cgroup.type").exists()
        self._file = cgroup2 / "cpu.stat" if root else None

    def seconds(self) -> float:
        """Busy seconds since boot."""
        if self._file is None:
            return busy_seconds(read_cpu_line())
        return parse_cpu_stat(self._file.read_text(encoding="ascii"))


def parse_cpu_stat(text: str) -> float:
    """Seconds in user and in system mode, from the text of the root cgroup's `cpu.stat`; not what was stolen."""
    fields = dict(line.split() for line in text.splitlines())
    return (int(fields["user_usec"]) + int(fields["system_usec"])) / 1e6


def read_cpu_line() -> str:
    """The first line of /proc/stat, now."""
    with open("/proc/stat", encoding="ascii") as file:
        return file.readline()


@dataclass(frozen=True)
class TcpCounters:
    """Retransmission time-outs, retransmitted segments, and segments dropped for want of receive buffer."""

    timeouts: int = 0
    retransmits: int = 0
    pruned: int = 0

    def __add__(self, other: TcpCounters) -> TcpCounters:
        return TcpCounters(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))

    def __sub__(self, other: TcpCounters) -> TcpCounters:
        return TcpCounters(*(getattr(self, f.name) - getattr(other, f.name) for f in fields(self)))


def parse_tcp_counters(netstat: str, snmp: str) -> TcpCounters:
    """Reads the counters from the texts of /proc/net/netstat and /proc/net/snmp."""
    extended, basic = _table(netstat, "TcpExt:"), _table(snmp, "Tcp:")
    return TcpCounters(extended["TCPTimeouts"], basic["RetransSegs"], extended["RcvPruned"])


def _table(text: str, prefix: str) -> dict[str, int]:
    names, values = (line.split()[1:] for line in text.splitlines() if line.startswith(prefix))
    return dict(zip(names, map(int, values), strict=True))


class TcpCounterFiles:
    """The counter files of one network namespace: of the caller's at the time of opening, for good."""

    def __init__(self) -> None:
        folder = Path("/proc/thread-self/net")
        self._netstat = open(folder / "netstat", encoding="ascii")  # noqa: SIM115 - closed by close()
        self._snmp = open(folder / "snmp", encoding="ascii")  # noqa: SIM115

    def read(self) -> TcpCounters:
        self._netstat.seek(0)
        self._snmp.seek(0)
        return parse_tcp_counters(self._netstat.read(), self._snmp.read())

    def close(self) -> None:
        self._netstat.close()
        self._snmp.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
