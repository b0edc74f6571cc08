"""What the bench reads: the kernel's counters, h2load's output, `zerohop status`."""

from __future__ import annotations

from pathlib import Path

import pytest

from zerohop.bench.cgroups import cgroup2_mount
from zerohop.bench.counters import (
    TICKS_PER_SECOND,
    BusyClock,
    TcpCounters,
    busy_seconds,
    cpu_us_per_operation,
    parse_cpu_stat,
    parse_tcp_counters,
    read_cpu_line,
)
from zerohop.bench.h2load import parse_request_log, parse_requests, parse_statuses
from zerohop.bench.modes.base import Carried
from zerohop.bench.modes.zerohop import Totals, require_shortcut
from zerohop.bench.placement import parse_cpu_list
from zerohop.bench.sockets import count_connections, is_listening
from zerohop.bench.workloads import WORKLOADS
from zerohop.errors import ZerohopError


def test_busy_time_is_user_nice_system_irq_and_softirq() -> None:
    #      user nice system idle iowait irq softirq steal guest guest_nice
    line = "cpu  1 20 300 999 999 4000 50000 999 999 999"
    assert busy_seconds(line) == pytest.approx(54321 / TICKS_PER_SECOND)
    later = "cpu  2 20 300 9999 9999 4000 50000 9999 999 999"
    assert cpu_us_per_operation(line, later, 10) == pytest.approx(1e6 / TICKS_PER_SECOND / 10)


@pytest.mark.parametrize("line", ["cpu0 1 2 3 4 5 6 7 8", "cpu  1 2 3", ""])
def test_another_line_of_proc_stat_is_refused(line: str) -> None:
    with pytest.raises(ValueError, match=r"proc/stat|unpack"):
        busy_seconds(line)


NETSTAT = """\
TcpExt: SyncookiesSent RcvPruned TCPTimeouts
TcpExt: 9 3 1
IpExt: InNoRoutes RcvPruned
IpExt: 8 8
"""
SNMP = """\
Ip: Forwarding RetransSegs
Ip: 1 7
Tcp: RtoAlgorithm MaxConn RetransSegs
Tcp: 1 -1 2
"""


def test_busy_time_of_the_root_cgroup_leaves_out_what_was_stolen(tmp_path: Path) -> None:
    text = "usage_usec 7000000\nuser_usec 2000000\nsystem_usec 1500000\nnice_usec 300000\n"
    assert parse_cpu_stat(text) == 3.5
    (tmp_path / "cpu.stat").write_text(text)
    assert BusyClock(tmp_path).seconds() == 3.5
    # Only the root has no type; other cgroups do not count the whole machine.
    (tmp_path / "cgroup.type").write_text("domain\n")
    assert BusyClock(tmp_path).seconds() == pytest.approx(busy_seconds(read_cpu_line()), abs=5)


def test_tcp_counters_come_from_their_own_lines() -> None:
    counters = parse_tcp_counters(NETSTAT, SNMP)
    assert counters == TcpCounters(timeouts=1, retransmits=2, pruned=3)
    assert counters + counters - counters == counters


def test_tcp_counters_of_this_kernel() -> None:
    counters = parse_tcp_counters(Path("/proc/net/netstat").read_text(), Path("/proc/net/snmp").read_text())
    assert counters.timeouts >= 0


def test_cpu_lists() -> None:
    assert parse_cpu_list("0\n") == {0}
    assert parse_cpu_list("0-2,5,7-8") == {0, 1, 2, 5, 7, 8}


def test_the_cgroup_mount_is_found_on_a_hybrid_machine() -> None:
    mountinfo = (
        "30 24 0:26 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n"
        "31 30 0:27 / /sys/fs/cgroup/cpu rw shared:9 - cgroup cgroup rw,cpu\n"
        "32 30 0:28 / /sys/fs/cgroup/uni\\040fied rw shared:10 - cgroup2 cgroup2 rw\n"
    )
    assert cgroup2_mount(mountinfo) == Path("/sys/fs/cgroup/uni fied")
    assert cgroup2_mount("30 24 0:26 / / rw - ext4 /dev/sda rw\n") is None


def test_h2load_output() -> None:
    line = "requests: 12 total, 12 started, 11 done, 11 succeeded, 0 failed, 0 errored, 0 timeout"
    assert parse_requests(f"starting benchmark...\n{line}\n") == 11


def test_statuses_of_h2load() -> None:
    assert parse_statuses("1000\t200\t5\n1010\t403\t6\n1020\t200\t7\n") == {"200": 2, "403": 1}
    assert parse_statuses("") == {}


@pytest.mark.parametrize(
    "output",
    [
        "requests: 2 total, 2 started, 2 done, 1 succeeded, 1 failed, 0 errored, 0 timeout",
        "requests: 2 total, 2 started, 1 done, 1 succeeded, 0 failed, 1 errored, 0 timeout",
        "requests: 0 total, 0 started, 0 done, 0 succeeded, 0 failed, 0 errored, 0 timeout",
        "nothing of the kind",
    ],
)
def test_h2load_failures_are_errors(output: str) -> None:
    with pytest.raises(ZerohopError, match="h2load"):
        parse_requests(output)


def test_h2load_request_log() -> None:
    assert parse_request_log("1700000000000000\t200\t31\n1700000000000040\t200\t29\n") == [
        (pytest.approx(1700000000.0, abs=1e-6), pytest.approx(1700000000.000031, abs=1e-6)),
        (pytest.approx(1700000000.00004, abs=1e-6), pytest.approx(1700000000.000069, abs=1e-6)),
    ]
    with pytest.raises(ZerohopError, match="status 404"):
        parse_request_log("1700000000000000\t404\t31\n")


def test_sockets_of_a_server_in_proc_net_tcp() -> None:
    table = (
        "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt\n"
        "   0: 0100007F:46A0 00000000:0000 0A 00000000:00000000 00:00000000 00000000\n"
        "   1: 0100007F:46A1 0100007F:9999 01 00000000:00000000 00:00000000 00000000\n"
        "   2: 0100007F:46A1 0100007F:9998 01 00000000:00000000 00:00000000 00000000\n"
        "   3: 0100007F:46A1 0100007F:9997 06 00000000:00000000 00:00000000 00000000\n"
    )
    assert is_listening(table, 0x46A0)
    assert not is_listening(table, 0x46A1)
    assert count_connections(table, 0x46A0) == 0
    assert count_connections(table, 0x46A1) == 2


def totals(connections: int, shortcut: int, tcp: int, **reasons: int) -> Totals:
    return Totals.parse(
        {
            "totals": {
                "connections_opened": 99,
                "shortcut_connections_opened": connections,
                "shortcut_bytes": shortcut,
                "tcp_bytes": tcp,
                "not_shortcut": reasons,
                "errors": {},
            }
        }
    )


def test_the_share_is_that_of_this_run() -> None:
    carried = require_shortcut(totals(5, 1000, 1000), totals(6, 1300, 1100), WORKLOADS["http2"])
    assert carried == Carried(shortcut_bytes=300, tcp_bytes=100)
    assert carried.shortcut_share == 0.75


def test_a_run_without_a_shortcut_fails_with_the_reasons() -> None:
    before = totals(5, 1000, 1000, BLOCKING=2, NO_PEER=1)
    with pytest.raises(ZerohopError, match=r"http2 was short-cut.*\{'BLOCKING': 1\}"):
        require_shortcut(before, totals(5, 1000, 2000, BLOCKING=3, NO_PEER=1), WORKLOADS["http2"])


def test_enrolled_but_unused_fails_except_where_leaving_is_right() -> None:
    before, after = totals(5, 1000, 1000), totals(6, 1000, 2000)
    with pytest.raises(ZerohopError, match="1000 bytes went by TCP"):
        require_shortcut(before, after, WORKLOADS["pingecho"])
    assert require_shortcut(before, after, WORKLOADS["bulk"]).shortcut_share == 0
