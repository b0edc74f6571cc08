"""Connections from before the hooks: what policies say of them, found through the kernel's socket diagnostics.

The hooks know a connection from its handshake on. One that is older, of a workload that is managed since, passes by
them: where a policy denies it, or would judge its calls, it is reset from here.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from zerohop.kernel import cgroup
from zerohop.kernel.datapath import DataPath
from zerohop.kernel.policies import Judge
from zerohop.kernel.resets import destroy, diag_socket

_DUMP: Final = 20  # SOCK_DIAG_BY_FAMILY
_NLM_F_REQUEST_DUMP: Final = 0x1 | 0x300
_NLMSG_DONE, _NLMSG_ERROR = 3, 2
_CGROUP_ID: Final = 21  # INET_DIAG_CGROUP_ID
_LISTEN: Final = 10
_ESTABLISHED, _FIN_WAIT1, _FIN_WAIT2, _CLOSE_WAIT = 1, 4, 5, 8

_HEADER: Final = struct.Struct("=IHHII")
_REQUEST: Final = struct.Struct("=BBBxI48x")
# struct inet_diag_msg: family, state; ports, addresses, interface, cookie; then counters.
_MESSAGE: Final = struct.Struct("=BBxx2s2s16s16sIQ20x")
_ATTRIBUTE: Final = struct.Struct("=HH")


@dataclass(frozen=True)
class Socket:
    """Addresses of 16 bytes, IPv4 as v4-mapped. `workload`: its number, 0: none. `netns`: inode of its namespace."""

    netns: int
    family: int
    state: int
    local: tuple[bytes, int]
    remote: tuple[bytes, int]
    cookie: int
    workload: int


def reset_existing(path: DataPath, cgroups: Mapping[str, int]) -> int:
    """Resets what policies forbid among connections that no hook knows; returns how many.

    `cgroups`: cgroup path to workload number. Calls that nobody can judge cost the connection, unless the policies'
    owner wants it observed. Raises `OSError`.
    """
    groups = _groups(cgroups)
    judged = {key.workload for key in list(path.maps["policies"].keys())}
    count = 0
    with Judge(path) as judge:
        for netns in _namespaces(cgroups):
            sockets = list(_sockets(netns, groups))
            # After the sockets: what is made between the two looks is known to the hooks.
            known = {end.cookie for _, conn in path.maps["connections"].items() for end in conn.ends}
            listening = {(each.workload, each.local[1]) for each in sockets if each.state == _LISTEN}
            callers = {(each.local, each.remote): each.workload for each in sockets}
            for each in sockets:
                if each.state == _LISTEN or each.cookie in known or each.workload not in judged:
                    continue
                if (each.workload, each.local[1]) not in listening:
                    continue
                client = callers.get((each.remote, each.local), 0)
                addresses = (each.remote[0], each.local[0])
                verdict = judge.judge(client, each.workload, each.local[1], addresses).verdict
                if not verdict.allowed or (verdict.open and not judge.observes_existing(each.workload)):
                    count += destroy(netns, each.family, each.local, each.remote, each.cookie)
    return count


def _groups(cgroups: Mapping[str, int]) -> dict[int, int]:
    """Ids of all cgroups of workloads to the workload's number; the deepest configured one counts."""
    found: dict[int, int] = {}
    for where in sorted(cgroups, key=lambda each: each.count("/")):
        for folder, _, _ in os.walk(cgroup.absolute(where)):
            identifier = cgroup.identifier(Path(folder))
            if identifier is not None:
                found[identifier] = cgroups[where]
    return found


def _namespaces(cgroups: Iterable[str]) -> set[int]:
    found = set()
    for where in cgroups:
        for process in cgroup.processes(where):
            try:
                found.add(os.stat(f"/proc/{process}/ns/net").st_ino)
            except OSError:
                continue
    return found


def _sockets(netns: int, groups: Mapping[int, int]) -> Iterator[Socket]:
    """The TCP sockets of a network namespace."""
    for family in (socket.AF_INET, socket.AF_INET6):
        diag = diag_socket(netns)
        if diag is None:
            return
        with diag:
            states = sum(1 << each for each in (_ESTABLISHED, _FIN_WAIT1, _FIN_WAIT2, _CLOSE_WAIT, _LISTEN))
            body = _REQUEST.pack(family, socket.IPPROTO_TCP, 0, states)
            diag.send(_HEADER.pack(_HEADER.size + len(body), _DUMP, _NLM_F_REQUEST_DUMP, 1, 0) + body)
            while True:
                data = diag.recv(1 << 18)
                at = 0
                while at < len(data):
                    length, kind, *_ = _HEADER.unpack_from(data, at)
                    if kind == _NLMSG_DONE:
                        break
                    if kind == _NLMSG_ERROR:
                        number = -struct.unpack_from("=i", data, at + _HEADER.size)[0]
                        raise OSError(number, os.strerror(number))
                    yield _socket(netns, data[at + _HEADER.size : at + length], groups)
                    at += -(-length // 4) * 4
                else:
                    continue
                break


def _socket(netns: int, message: bytes, groups: Mapping[int, int]) -> Socket:
    family, state, source_port, target_port, source, target, _, cookie = _MESSAGE.unpack_from(message)
    at, group = _MESSAGE.size, 0
    while at + _ATTRIBUTE.size <= len(message):
        length, kind = _ATTRIBUTE.unpack_from(message, at)
        if kind == _CGROUP_ID:
            (group,) = struct.unpack_from("=Q", message, at + _ATTRIBUTE.size)
        at += max(4, -(-length // 4) * 4)
    return Socket(
        netns,
        family,
        state,
        (_sixteen(family, source), int.from_bytes(source_port)),
        (_sixteen(family, target), int.from_bytes(target_port)),
        cookie,
        groups.get(group, 0),
    )


def _sixteen(family: int, address: bytes) -> bytes:
    return address if family == socket.AF_INET6 else bytes(10) + b"\xff\xff" + address[:4]
