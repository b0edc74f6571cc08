"""Bytes whose every position is known, sent and received by non-blocking calls and compared."""

from __future__ import annotations

import fcntl
import functools
import os
import random
import select
import socket
import struct
import termios
import time
from typing import Final

from zerohop.doctor.checks import Broken

PATIENCE_SECONDS: Final = 3.0  # on loopback an answer takes microseconds; longer is a hang
LONGEST: Final = 1 << 18  # of one send or receive, bytes
ROOM: Final = 1 << 18  # receive buffer of an open receiver as the kernel counts it, bytes
TCP_ONLY_ABOVE: Final = 1200  # bytes: half of the smallest receive buffer (SOCK_MIN_RCVBUF) has no room for more
_PERIOD: Final = (1 << 20) + 7


@functools.cache
def _pattern() -> memoryview:
    content = random.Random(20261122).randbytes(_PERIOD)
    return memoryview(content + content[:LONGEST])


class Stream:
    """One direction of a connection. Raises `Broken` for errors, for a wrong byte and for bytes that stay away."""

    def __init__(self, name: str, sender: socket.socket, receiver: socket.socket, *, start: int = 0) -> None:
        """`start`: offset into the pattern, so that no two streams look alike."""
        self.name = name
        self.sender = sender
        self.receiver = receiver
        self.sent = 0
        self.received = 0
        self._start = start

    def send(self, size: int) -> int:
        """One `send` of at most `size` bytes; returns how many were taken, 0 for EAGAIN."""
        try:
            taken = self.sender.send(self.content(self.sent, size))
        except BlockingIOError:
            return 0
        except OSError as error:
            raise Broken(f"{self.name}: send after {self.sent} bytes: {os.strerror(error.errno or 0)}") from None
        self.sent += taken
        return taken

    def send_whole(self, size: int) -> None:
        """Sends `size` bytes in one call, which the buffers must have room for."""
        if self.send(size) != size:
            raise Broken(f"{self.name}: a send of {size} bytes was not taken whole by an empty connection")

    def send_by_tcp(self, size: int) -> None:
        """Sends `size` bytes (over `TCP_ONLY_ABOVE`) in one call while the receiver has no room for a short-cut."""
        self.receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        try:
            self.send_whole(size)
        finally:
            self.open_room()

    def open_room(self) -> None:
        """Gives the receiver a buffer of a known size, in which a short-cut has room."""
        self.receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, ROOM // 2)

    def receive(self, size: int = LONGEST) -> int:
        """One `recv`; returns how many bytes came, 0 for EAGAIN."""
        try:
            content = self.receiver.recv(min(size, LONGEST))
        except BlockingIOError:
            return 0
        except OSError as error:
            raise Broken(f"{self.name}: recv after {self.received}: {os.strerror(error.errno or 0)}") from None
        if not content:
            raise Broken(f"{self.name}: end of file after {self.received} of {self.sent} bytes")
        if content != self.content(self.received, len(content)):
            expected = self.content(self.received, len(content))
            first = next(i for i, byte in enumerate(content) if byte != expected[i])
            raise Broken(f"{self.name}: byte {self.received + first} of {self.sent} is not the one that was sent")
        self.received += len(content)
        return len(content)

    def receive_all(self) -> None:
        """Receives what was sent and not yet received, waiting by `poll` as an event-driven program does."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while self.received < self.sent:
            if self.receive():
                deadline = time.monotonic() + PATIENCE_SECONDS
            elif not wait(self.receiver, select.POLLIN, deadline - time.monotonic()):
                raise Broken(
                    f"{self.name}: {self.sent - self.received} of {self.sent} bytes did not arrive within"
                    f" {PATIENCE_SECONDS:.0f} s (FIONREAD says {queued(self.receiver)})"
                )
            elif time.monotonic() > deadline:
                raise Broken(
                    f"{self.name}: poll says readable, recv says EAGAIN, with {self.sent - self.received} bytes to come"
                    f" (FIONREAD says {queued(self.receiver)})"
                )

    def acknowledged(self) -> None:
        """Waits until TCP has had everything acknowledged."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while unacknowledged(self.sender):
            if time.monotonic() > deadline:
                raise Broken(f"{self.name}: {unacknowledged(self.sender)} bytes are never acknowledged")
            time.sleep(0.001)

    def content(self, offset: int, size: int) -> memoryview:
        """What stands at `offset` of this stream, at most `LONGEST` bytes."""
        begin = (self._start + offset) % _PERIOD
        return _pattern()[begin : begin + min(size, LONGEST)]


def wait(connection: socket.socket, event: int, seconds: float) -> bool:
    """Whether `poll` reports the event within that time."""
    poll = select.poll()
    poll.register(connection, event)
    return bool(poll.poll(max(seconds, 0) * 1000))


def queued(connection: socket.socket) -> int:
    """FIONREAD: bytes that can be read."""
    return _ioctl(connection, termios.FIONREAD)


def unacknowledged(connection: socket.socket) -> int:
    """SIOCOUTQ: bytes that TCP has not had acknowledged."""
    return _ioctl(connection, termios.TIOCOUTQ)


def _ioctl(connection: socket.socket, request: int) -> int:
    value: int = struct.unpack("i", fcntl.ioctl(connection, request, b"\0\0\0\0"))[0]
    return value
