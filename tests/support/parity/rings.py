"""Scenarios: io_uring by bare system calls."""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import select
import socket
import struct
import time

from endings import close_with_reset
from harness import QUIET, SOON, Scene, content, libc, scenario

SETUP, ENTER = 425, 426
OFF_SQ_RING, OFF_CQ_RING, OFF_SQES = 0, 0x8000000, 0x10000000
GETEVENTS = 1
READV, WRITEV, POLL_ADD, SENDMSG, RECVMSG, ACCEPT, CONNECT, CLOSE = 1, 2, 6, 9, 10, 13, 16, 19
READ, WRITE, SEND, RECV, SPLICE, SHUTDOWN, SEND_ZC = 22, 23, 26, 27, 30, 34, 47
CANCEL = 14
CQE_MORE, CQE_NOTIFICATION = 2, 8
ENTRIES = 16


class Ring:
    """One submission at a time; completions come as (tag, result, flags)."""

    def __init__(self) -> None:
        parameters = ctypes.create_string_buffer(120)
        self._fd = libc.syscall(SETUP, ENTRIES, parameters)
        if self._fd < 0:
            raise OSError(ctypes.get_errno(), "io_uring_setup")
        sq = struct.unpack_from("8I", parameters, 40)
        cq = struct.unpack_from("8I", parameters, 80)
        self._sq_tail, self._sq_mask, self._sq_array = sq[1], sq[2], sq[6]
        self._cq_head, self._cq_tail, self._cq_mask, self._cqes = cq[0], cq[1], cq[2], cq[5]
        shared = mmap.MAP_SHARED | mmap.MAP_POPULATE
        self._sq = mmap.mmap(self._fd, sq[6] + ENTRIES * 4, shared, offset=OFF_SQ_RING)
        self._cq = mmap.mmap(self._fd, cq[5] + 2 * ENTRIES * 16, shared, offset=OFF_CQ_RING)
        self._entries = mmap.mmap(self._fd, ENTRIES * 64, shared, offset=OFF_SQES)
        self._keep: list[object] = []

    def _word(self, area: mmap.mmap, at: int) -> int:
        value: int = struct.unpack_from("I", area, at)[0]
        return value

    def submit(
        self,
        operation: int,
        end: socket.socket | int,
        address: object = 0,
        length: int = 0,
        *,
        offset: int = 0,
        flags: int = 0,
        tag: int = 0,
        fd_in: int = 0,
    ) -> None:
        fd = end if isinstance(end, int) else end.fileno()
        if not isinstance(address, int):
            self._keep.append(address)
            address = ctypes.addressof(address)  # type: ignore[arg-type]
        tail = self._word(self._sq, self._sq_tail)
        slot = tail & self._word(self._sq, self._sq_mask)
        entry = struct.pack("BBHiQQIIQHHiQ8x", operation, 0, 0, fd, offset, address, length, flags, tag, 0, 0, fd_in, 0)
        self._entries[slot * 64 : slot * 64 + 64] = entry
        struct.pack_into("I", self._sq, self._sq_array + slot * 4, slot)
        struct.pack_into("I", self._sq, self._sq_tail, tail + 1)
        if libc.syscall(ENTER, self._fd, 1, 0, 0, None, 0) < 0:
            raise OSError(ctypes.get_errno(), "io_uring_enter")

    def completion(self, seconds: float = SOON) -> tuple[int, object, int] | None:
        """The next completion; a negative result as the errno's name."""
        poll = select.poll()
        poll.register(self._fd, select.POLLIN)
        deadline = time.monotonic() + seconds
        while self._word(self._cq, self._cq_head) == self._word(self._cq, self._cq_tail):
            left = deadline - time.monotonic()
            if left <= 0:
                return None
            poll.poll(left * 1000)
        head = self._word(self._cq, self._cq_head)
        slot = head & self._word(self._cq, self._cq_mask)
        tag, result, flags = struct.unpack_from("QiI", self._cq, self._cqes + slot * 16)
        struct.pack_into("I", self._cq, self._cq_head, head + 1)
        return tag, errno.errorcode.get(-result, result) if result < 0 else result, flags

    def result(self, seconds: float = SOON) -> object:
        found = self.completion(seconds)
        return found[1] if found else "none"


def buffer_of(data: bytes) -> ctypes.Array[ctypes.c_char]:
    return ctypes.create_string_buffer(data, len(data))


@scenario()
def ring_send_and_receive(scene: Scene) -> None:
    client, server = scene.pair()
    ring = Ring()
    for size in (1, 1000, 20_000):
        data = content(size, size)
        ring.submit(SEND, client, buffer_of(data), size)
        scene.note("sent", ring.result())
        scene.arrive(server, size)
        into = ctypes.create_string_buffer(size)
        ring.submit(RECV, server, into, size)
        scene.note("received", ring.result())
        scene.note("right", into.raw == data)


@scenario()
def ring_receive_waits(scene: Scene) -> None:
    """A receive that is submitted first completes when data comes, also on a non-blocking socket."""
    client, server = scene.pair()
    ring = Ring()
    into = ctypes.create_string_buffer(100)
    ring.submit(RECV, server, into, 100)
    scene.note("early", ring.result(QUIET))
    client.send(b"wake")
    scene.note("received", ring.result())
    scene.note("data", into.raw[:4])


@scenario()
def ring_receive_of_all(scene: Scene) -> None:
    client, server = scene.pair()
    ring = Ring()
    into = ctypes.create_string_buffer(100)
    ring.submit(RECV, server, into, 100, flags=socket.MSG_WAITALL)
    for i in range(4):
        client.send(content(25, i))
        time.sleep(QUIET / 4)
    scene.note("received", ring.result())


@scenario()
def ring_receive_ended(scene: Scene) -> None:
    for end_it in (lambda end: end.shutdown(socket.SHUT_WR), close_with_reset):
        client, server = scene.pair()
        client.send(b"x")
        scene.read(server, 1)
        ring = Ring()
        ring.submit(RECV, server, ctypes.create_string_buffer(100), 100)
        scene.note("early", ring.result(QUIET))
        end_it(client)
        scene.note("received", ring.result())


@scenario()
def ring_poll(scene: Scene) -> None:
    client, server = scene.pair()
    ring = Ring()
    for mask, cause in (
        (select.POLLIN, lambda: client.send(b"x")),
        (select.POLLIN | select.POLLRDHUP, lambda: client.shutdown(socket.SHUT_WR)),
    ):
        ring.submit(POLL_ADD, server, flags=mask)
        scene.note("early", ring.result(QUIET))
        cause()
        scene.note("events", ring.result())
        scene.attempt("received", server.recv, 10)


@scenario()
def ring_poll_many_times(scene: Scene) -> None:
    client, server = scene.pair()
    ring = Ring()
    ring.submit(POLL_ADD, server, flags=select.POLLIN, length=1)
    for i in range(3):
        client.send(bytes([i]))
        found = ring.completion()
        scene.note("events", [found[1], found[2] & CQE_MORE] if found else "none")
        scene.attempt("received", server.recv, 10)


@scenario()
def ring_vectors(scene: Scene) -> None:
    client, server = scene.pair()
    ring = Ring()
    parts = [buffer_of(content(size, size)) for size in (10, 1, 500)]
    vector = (ctypes.c_uint64 * 6)(*(word for part in parts for word in (ctypes.addressof(part), len(part))))
    ring.submit(WRITEV, client, vector, 3)
    scene.note("written", ring.result())
    scene.arrive(server, 511)
    ring.submit(READV, server, vector, 3)
    scene.note("read", ring.result())
    scene.note("right", [part.raw == content(size, size) for part, size in zip(parts, (10, 1, 500), strict=True)])


def message(data: ctypes.Array[ctypes.c_char]) -> tuple[ctypes.Array[ctypes.c_uint64], object]:
    """A `struct msghdr` with one buffer, and what it points to."""
    vector = (ctypes.c_uint64 * 2)(ctypes.addressof(data), len(data))
    return (ctypes.c_uint64 * 7)(0, 0, ctypes.addressof(vector), 1, 0, 0, 0), vector


@scenario()
def ring_messages(scene: Scene) -> None:
    client, server = scene.pair()
    ring = Ring()
    header, _keep = message(buffer_of(b"a message"))
    ring.submit(SENDMSG, client, header, 1)
    scene.note("sent", ring.result())
    into = ctypes.create_string_buffer(100)
    header, _keep = message(into)
    ring.submit(RECVMSG, server, header, 1)
    scene.note("received", ring.result())
    scene.note("data", into.raw[:9])


@scenario()
def ring_file_calls(scene: Scene) -> None:
    client, server = scene.pair()
    ring = Ring()
    nowhere = 0xFFFFFFFFFFFFFFFF
    ring.submit(WRITE, client, buffer_of(b"written"), 7, offset=nowhere)
    scene.note("written", ring.result())
    into = ctypes.create_string_buffer(100)
    ring.submit(READ, server, into, 100, offset=nowhere)
    scene.note("read", ring.result())
    ring.submit(SHUTDOWN, client, length=socket.SHUT_WR)
    scene.note("shutdown", ring.result())
    ring.submit(READ, server, into, 100, offset=nowhere)
    scene.note("the end", ring.result())
    ring.submit(CLOSE, client.detach())
    scene.note("closed", ring.result())
    scene.note("events", scene.until(server, "RDHUP"))


@scenario()
def ring_accept_and_connect(scene: Scene) -> None:
    listening = scene.listener()
    client = scene.fresh()
    ring = Ring()
    ring.submit(ACCEPT, listening, flags=socket.SOCK_NONBLOCK, tag=1)
    address = struct.pack("!4s", socket.inet_aton("127.0.0.1"))
    name = struct.pack("=H", socket.AF_INET) + struct.pack("!H", listening.getsockname()[1]) + address + bytes(8)
    ring.submit(CONNECT, client, buffer_of(name), offset=16, tag=2)
    results = dict(found[:2] for _ in range(2) if (found := ring.completion()))
    scene.note("connected", results.get(2))
    scene.note("accepted", isinstance(results.get(1), int))
    with socket.socket(fileno=results[1]) as server:  # type: ignore[arg-type]
        client.send(b"hello")
        scene.note("arrived", scene.read(server, 5))


@scenario()
def ring_send_without_copy(scene: Scene) -> None:
    client, server = scene.pair()
    ring = Ring()
    data = content(20_000)
    ring.submit(SEND_ZC, client, buffer_of(data), len(data))
    first = ring.completion()
    scene.note("sent", first[1] if first else "none")
    scene.note("arrived", scene.read(server, len(data)) == data)
    if first and first[2] & CQE_MORE:
        second = ring.completion()
        scene.note("notified", bool(second and second[2] & CQE_NOTIFICATION))


@scenario()
def ring_send_when_full(scene: Scene) -> None:
    """A send that finds no room completes when there is some."""
    client, server = scene.pair(receive=8192, send=16384)
    sent = scene.fill(client)
    ring = Ring()
    ring.submit(SEND, client, buffer_of(b"the last"), 8)
    early = ring.result(QUIET)
    scene.note("early", early)
    scene.note("drained", len(scene.read(server, sent)) == sent)
    scene.note("sent", ring.result() if early == "none" else early)


@scenario()
def ring_splice(scene: Scene) -> None:
    """Not a splice(2), so no filter sees it."""
    client, server = scene.pair()
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    client.send(b"into a pipe")
    scene.arrive(server, 11)
    ring = Ring()
    nowhere = 0xFFFFFFFFFFFFFFFF
    ring.submit(SPLICE, writing, nowhere, 11, offset=nowhere, fd_in=server.fileno())
    scene.note("spliced", ring.result())
    scene.attempt("from the pipe", os.read, reading, 100)


@scenario()
def ring_cancel(scene: Scene) -> None:
    client, server = scene.pair()
    ring = Ring()
    ring.submit(RECV, server, ctypes.create_string_buffer(100), 100, tag=7)
    scene.note("early", ring.result(QUIET))
    ring.submit(CANCEL, -1, 7, tag=8)
    results = dict(found[:2] for _ in range(2) if (found := ring.completion()))
    scene.note("results", [results.get(7), results.get(8)])
    client.send(b"later")
    scene.note("arrived", scene.read(server, 5))
