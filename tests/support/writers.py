"""Threads that write to one HTTP/2 connection. `writers.py holder|reader|overlap|turns HOST PORT`.

The holder, a server, reads into a page that is not there (userfaultfd(2)), so it holds its socket's lock until it is
told to go on. In `overlap`, its client, the redirect of one thread waits for that lock when the other thread writes.
The reader just reads, and in `turns` threads write by turns, as programs do.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import json
import mmap
import os
import select
import socket
import struct
import sys
import termios
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from support import frames

ANSWER = frames.frame(frames.SETTINGS, 0, 0, b"")
OPENING = frames.PREFACE + ANSWER
NR_USERFAULTFD = {"x86_64": 323, "aarch64": 282}
UFFDIO_API, UFFDIO_REGISTER, UFFDIO_ZEROPAGE = 0xC018AA3F, 0xC020AA00, 0xC020AA04
TURNS, THREADS = 20_000, 4


def ping(number: int) -> bytes:
    return frames.frame(frames.PING, 0, 0, number.to_bytes(8, "big"))


class HeldRead:
    """A thread that reads from a socket with bytes to read, and holds its lock, until `release`."""

    def __init__(self, connection: socket.socket) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        self.fd = libc.syscall(NR_USERFAULTFD[os.uname().machine], os.O_CLOEXEC)
        if self.fd < 0:
            raise OSError(ctypes.get_errno(), "userfaultfd")
        self.connection = connection
        self.memory = mmap.mmap(-1, mmap.PAGESIZE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self.address = ctypes.addressof(ctypes.c_char.from_buffer(self.memory))
        self.length = 0
        fcntl.ioctl(self.fd, UFFDIO_API, struct.pack("QQQ", 0xAA, 0, 0))
        fcntl.ioctl(self.fd, UFFDIO_REGISTER, struct.pack("QQQQ", self.address, mmap.PAGESIZE, 1, 0))
        self.thread = threading.Thread(target=self.read)
        self.thread.start()
        os.read(self.fd, 32)  # The kernel asks for the page.

    def read(self) -> None:
        select.select([self.connection], [], [])
        self.length = self.connection.recv_into(self.memory)

    def release(self) -> bytes:
        """What it reads."""
        fcntl.ioctl(self.fd, UFFDIO_ZEROPAGE, struct.pack("QQQq", self.address, mmap.PAGESIZE, 0, 0))
        self.thread.join()
        return self.memory[: self.length]


def wait_until_acknowledged(connection: socket.socket) -> None:
    """The short-cut waits for what TCP carries."""
    while struct.unpack("i", fcntl.ioctl(connection, termios.TIOCOUTQ, b"1234"))[0]:
        time.sleep(0.001)


def waits_for_lock(thread: threading.Thread) -> bool:
    """Of a thread that has not ended."""
    return Path(f"/proc/self/task/{thread.native_id}/stat").read_text().rpartition(")")[2].split()[0] == "D"


def tell(what: object) -> None:
    print(json.dumps(what), flush=True)


def receive(connection: socket.socket, until: int) -> bytes:
    """So many bytes, or fewer if the connection ends before."""
    received = b""
    while len(received) < until:
        select.select([connection], [], [])
        with contextlib.suppress(BlockingIOError):
            try:
                part = connection.recv(until - len(received))
            except ConnectionError:
                break
            if not part:
                break
            received += part
    return received


def accept(address: tuple[str, int]) -> socket.socket:
    listener = socket.create_server(address)
    listener.setblocking(False)
    tell("ready")
    select.select([listener], [], [])
    connection, _ = listener.accept()
    connection.setblocking(False)
    connection.sendall(ANSWER)
    return connection


def receive_all(connection: socket.socket) -> bytes:
    received = b""
    while part := receive(connection, 65536):
        received += part
    return received


def read(address: tuple[str, int]) -> None:
    tell(receive_all(accept(address)).hex())


def hold(address: tuple[str, int]) -> None:
    connection = accept(address)
    received = receive(connection, len(OPENING))
    reader = HeldRead(connection)
    tell("holding")
    sys.stdin.readline()
    tell((received + reader.release() + receive_all(connection)).hex())


def connect(address: tuple[str, int]) -> socket.socket:
    connection = socket.socket()
    connection.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        connection.connect(address)
    select.select([], [connection], [])
    connection.sendall(OPENING)
    assert receive(connection, len(ANSWER)) == ANSWER
    return connection


def overlap(address: tuple[str, int]) -> None:
    connection = connect(address)
    connection.sendall(ping(0))
    wait_until_acknowledged(connection)
    tell("sent")
    sys.stdin.readline()  # The server holds the lock of its socket.
    first = threading.Thread(target=connection.send, args=(ping(1),))
    first.start()
    while not waits_for_lock(first):
        time.sleep(0.001)
    outcome = []

    def second() -> None:
        try:
            outcome.append(connection.send(ping(2)))
        except OSError as error:
            outcome.append(error.errno)

    other = threading.Thread(target=second)
    other.start()
    other.join(0.5)
    tell(outcome)
    sys.stdin.readline()  # It does not any more.
    first.join()
    other.join()
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_WR)


def take_turns(address: tuple[str, int]) -> None:
    connection = connect(address)
    lock = threading.Lock()
    numbers = iter(range(1, TURNS + 1))

    def write() -> None:
        while True:
            with lock:
                number = next(numbers, None)
                if number is None:
                    return
                rest = ping(number)
                while rest:
                    select.select([], [connection], [])
                    with contextlib.suppress(BlockingIOError):
                        rest = rest[connection.send(rest) :]

    threads = [threading.Thread(target=write) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    connection.shutdown(socket.SHUT_WR)


if __name__ == "__main__":
    role, host, port = sys.argv[1:]
    {"holder": hold, "reader": read, "overlap": overlap, "turns": take_turns}[role]((host, int(port)))
