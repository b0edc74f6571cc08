"""Connections that the hooks have broken, and that only user space can reset: the kernel's requests, carried out.

A socket is found by its addresses in its network namespace and by its cookie, so that no other can be hit
(`inet_diag_find_one_icsk`), and ended as by an abort: both programs see a reset (`tcp_abort`).
"""

from __future__ import annotations

import ctypes
import errno
import logging
import math
import os
import socket
import struct
import threading
import time
from pathlib import Path
from typing import Any, Final

from zerohop.kernel import libbpf
from zerohop.kernel.datapath import DataPath

log = logging.getLogger("zerohop")

_CLONE_NEWNET: Final = 0x40000000
_NETLINK_SOCK_DIAG: Final = 4
_SOCK_DESTROY: Final = 21
_NLMSG_ERROR: Final = 2
_NLM_F_REQUEST_ACK: Final = 0x1 | 0x4

# struct nlmsghdr; struct inet_diag_req_v2 with its inet_diag_sockid (include/uapi/linux/inet_diag.h).
_HEADER: Final = struct.Struct("=IHHII")
_REQUEST: Final = struct.Struct("=BBBxI2s2s16s16sIQ")

_RECORD_CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)


# Until those for which it was too early are looked at again: at first, and each time twice as long up to the last.
EARLY_SECONDS: Final = 0.002
LATEST_SECONDS: Final = 1.0


class Resets:
    """The requests of one data path. `fileno` is readable when there are any; `carry_out` sees to them.

    For some it is too early (bpf/mesh/breaking.h): `is_due` says when the kernel is to be asked for them again.
    """

    def __init__(self, path: DataPath) -> None:
        self._type = path.layouts.struct("reset_request")
        self._waiting: list[Any] = []
        self._delay = EARLY_SECONDS
        self._due = math.inf
        self._callback = _RECORD_CALLBACK(self._take)
        self._map = libbpf.obj_get(str(path.folder / "maps" / "resets"))
        try:
            self._ring = libbpf.pointer("opening the resets", "ring_buffer__new", self._map, self._callback, None, None)
        except BaseException:
            os.close(self._map)
            raise

    def close(self) -> None:
        libbpf.library().ring_buffer__free(self._ring)
        os.close(self._map)

    def fileno(self) -> int:
        return libbpf.call("waiting for resets", "ring_buffer__epoll_fd", self._ring)

    def carry_out(self) -> int:
        """Resets what was asked for; returns how many connections were still there."""
        libbpf.call("reading the resets", "ring_buffer__consume", self._ring)
        waiting, self._waiting = self._waiting, []
        early = any(request.early for request in waiting)
        if early and self._due == math.inf:
            self._delay = min(LATEST_SECONDS, 2 * self._delay)
            self._due = time.monotonic() + self._delay
        elif not early and self._due == math.inf:
            self._delay = EARLY_SECONDS
        done = 0
        for request in waiting:
            if request.early:
                continue
            try:
                done += reset(request)
            except OSError as error:
                log.warning("a connection that policy forbids could not be reset, it stays without a byte: %s", error)
        return done

    def pause(self) -> float:
        """Seconds until `is_due`."""
        return max(0.0, self._due - time.monotonic())

    def is_due(self) -> bool:
        """Whether the kernel is to be asked again now: the requests that it repeats come with `carry_out`."""
        if time.monotonic() < self._due:
            return False
        self._due = math.inf
        return True

    def _take(self, _: int, data: int, size: int) -> int:
        if size >= ctypes.sizeof(self._type):
            self._waiting.append(self._type.from_buffer_copy(ctypes.string_at(data, ctypes.sizeof(self._type))))
        return 0


def reset(request: Any) -> bool:
    """Ends the socket that a `struct reset_request` names; False when it, or its network namespace, has gone."""
    local, remote = (bytes(request.local), request.local_port), (bytes(request.remote), request.remote_port)
    return destroy(request.netns, request.family, local, remote, request.cookie, packed=True)


def destroy(
    netns: int, family: int, local: tuple[bytes, int], remote: tuple[bytes, int], cookie: int, *, packed: bool = False
) -> bool:
    """Ends a TCP socket; False when it, or its network namespace, has gone. Raises `OSError` when the kernel refuses.

    Addresses of 16 bytes: IPv4 as v4-mapped, or, `packed`, in the first four.
    """
    diag = diag_socket(netns)
    if diag is None:
        return False
    addresses = [
        each if packed or family == socket.AF_INET6 else each[12:] + bytes(12) for each in (local[0], remote[0])
    ]
    with diag:
        body = _REQUEST.pack(
            family, socket.IPPROTO_TCP, 0, 0xFFFFFFFF, struct.pack("!H", local[1]), struct.pack("!H", remote[1]),
            *addresses, 0, cookie,
        )  # fmt: skip
        diag.send(_HEADER.pack(_HEADER.size + len(body), _SOCK_DESTROY, _NLM_F_REQUEST_ACK, 1, 0) + body)
        answer = diag.recv(4096)
    _, kind, _, _, _ = _HEADER.unpack_from(answer)
    number = -struct.unpack_from("=i", answer, _HEADER.size)[0] if kind == _NLMSG_ERROR else 0
    if number in (0, errno.ENOENT, errno.ESTALE):
        return number == 0
    raise OSError(number, os.strerror(number))


def diag_socket(netns: int) -> socket.socket | None:
    """A netlink socket of the network namespace with this inode; None when no process is in it any more."""
    if os.stat("/proc/self/ns/net").st_ino == netns:
        return _new_socket()
    place = _namespace(netns)
    if place is None:
        return None
    made: list[socket.socket] = []
    failed: list[OSError] = []

    def enter() -> None:
        # A socket belongs to the namespace of the thread that made it, for good.
        try:
            fd = os.open(place, os.O_RDONLY | os.O_CLOEXEC)
            try:
                if _libc.setns(fd, _CLONE_NEWNET):
                    raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
                made.append(_new_socket())
            finally:
                os.close(fd)
        except OSError as error:
            failed.append(error)

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    if failed:
        if isinstance(failed[0], FileNotFoundError):
            return None
        raise failed[0]
    return made[0]


_libc = ctypes.CDLL(None, use_errno=True)


def _new_socket() -> socket.socket:
    diag = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_SOCK_DIAG)
    diag.settimeout(5)
    return diag


def _namespace(netns: int) -> str | None:
    for each in Path("/proc").iterdir():
        if each.name.isdigit():
            try:
                if os.stat(each / "ns" / "net").st_ino == netns:
                    return str(each / "ns" / "net")
            except OSError:
                continue
    return None
