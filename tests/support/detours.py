"""Attempts (attempts.py) that take another way into the kernel than a send on a connection of one's own."""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import select
import socket
import struct
import sys

# As a program attempts.py is not a module of that name: these have to be registered there.
sys.modules.setdefault("attempts", sys.modules["__main__"])

from attempts import ATTEMPTS, CONNECTS, OPENING, attempt, block, headers, put  # noqa: E402

REQUEST = OPENING + headers(block())
TCP_ULP, MSG_FASTOPEN, IPPROTO_MPTCP = 31, 0x20000000, 262

IO_URING_SETUP, IO_URING_ENTER = 425, 426
GETEVENTS = 1
WRITE, SEND, SEND_ZC = 23, 26, 47
SQES_OFFSET = 0x10000000
LIBC = ctypes.CDLL(None, use_errno=True)


def uring(connection: socket.socket, operation: int, data: bytes) -> None:
    """One operation by a ring of its own (io_uring_setup(2), io_uring_enter(2))."""
    parameters = ctypes.create_string_buffer(120)
    ring = LIBC.syscall(IO_URING_SETUP, 1, parameters)
    if ring < 0:
        raise OSError(ctypes.get_errno(), "io_uring_setup")
    tail, entries, array = (struct.unpack_from("=I", parameters.raw, at)[0] for at in (44, 0, 64))
    queue = mmap.mmap(ring, array + 4 * entries)
    slots = mmap.mmap(ring, 64 * entries, offset=SQES_OFFSET)
    buffer = ctypes.create_string_buffer(data, len(data))
    slots[:64] = struct.pack(
        "=BBHiQQIIQ", operation, 0, 0, connection.fileno(), 0, ctypes.addressof(buffer), len(data), 0, 0
    ).ljust(64, b"\0")
    queue[array : array + 4] = bytes(4)
    queue[tail : tail + 4] = struct.pack("=I", 1)
    LIBC.syscall(IO_URING_ENTER, ring, 1, 1, GETEVENTS, None, 0)
    select.select([], [], [], 0.1)
    os.close(ring)


@attempt
def io_uring(connection: socket.socket) -> None:
    uring(connection, SEND, REQUEST)


@attempt
def io_uring_write(connection: socket.socket) -> None:
    uring(connection, WRITE, REQUEST)


@attempt
def io_uring_zerocopy(connection: socket.socket) -> None:
    uring(connection, SEND_ZC, REQUEST)


@attempt
def upper_layer(connection: socket.socket) -> None:
    """Takes the socket out of the hooks, if it can."""
    with contextlib.suppress(OSError):
        connection.setsockopt(socket.IPPROTO_TCP, TCP_ULP, b"tls")
    put(connection, REQUEST)


def leave_cgroup() -> None:
    """To the root cgroup, whose list of processes is given open: it is in no mount of a network namespace's."""
    os.write(int(os.environ["ROOT_CGROUP"]), b"0")


@attempt
def moved_to_another_cgroup(connection: socket.socket) -> None:
    leave_cgroup()
    put(connection, REQUEST)


@attempt
def passed_over_a_socket(connection: socket.socket) -> None:
    """To a process of another cgroup, which sends."""
    ours, theirs = socket.socketpair()
    child = os.fork()
    if not child:
        with contextlib.suppress(OSError):
            leave_cgroup()
            _, (descriptor,), _, _ = socket.recv_fds(theirs, 1, 1)
            put(socket.socket(fileno=descriptor), REQUEST)
        os._exit(0)
    socket.send_fds(ours, [b"a"], [connection.fileno()])
    os.waitpid(child, 0)


@attempt
def by_two_processes(connection: socket.socket) -> None:
    half = len(REQUEST) - 30
    put(connection, REQUEST[:half])
    child = os.fork()
    if not child:
        with contextlib.suppress(OSError):
            leave_cgroup()
            put(connection, REQUEST[half:])
        os._exit(0)
    os.waitpid(child, 0)


def fast_open(address: tuple[str, int]) -> socket.socket:
    """The request in the SYN."""
    connection = socket.socket()
    connection.setblocking(False)
    with contextlib.suppress(OSError):
        connection.sendto(REQUEST, MSG_FASTOPEN, address)
    return connection


def deferred(address: tuple[str, int]) -> socket.socket:
    """With the handshake's last ACK: a client that waits for data delays it (tcp_rcv_synsent_state_process)."""
    connection = socket.socket()
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, 1)
    connection.setblocking(False)
    connection.connect_ex(address)
    put(connection, REQUEST)
    return connection


def multipath(address: tuple[str, int]) -> socket.socket:
    connection = socket.socket(socket.AF_INET, socket.SOCK_STREAM, IPPROTO_MPTCP)
    connection.settimeout(20)
    with contextlib.suppress(OSError):
        connection.connect(address)
        connection.send(REQUEST)
    return connection


def wait(_: socket.socket) -> None:
    """It was done in connecting; what was kept back comes again."""
    select.select([], [], [], 2)


for name, made in {"fast open": fast_open, "with the last ACK": deferred, "multipath": multipath}.items():
    CONNECTS[name] = made
    ATTEMPTS[name] = wait
