"""Two threads that write at once: the hook notices it by what the kernel does with a message (bpf/mesh/writers.h)."""

from __future__ import annotations

import fcntl
import select
import socket
import struct
import termios
import threading
import time
from pathlib import Path

import sockets

from support.writers import PREFACE, SETTINGS, MissingPage, ping

SETTLE_SECONDS = 2.0


def overlap(client: socket.socket, server: socket.socket) -> list[str]:
    """The second writes while the server holds its lock and the first waits for it. Nothing is judged: both may."""
    client.send(PREFACE + SETTINGS)
    problems = [] if sockets.receive(server, len(PREFACE + SETTINGS)) == PREFACE + SETTINGS else ["another opening"]
    server.send(SETTINGS)
    sockets.receive(client, len(SETTINGS))
    client.send(ping(0))
    while struct.unpack("i", fcntl.ioctl(client, termios.TIOCOUTQ, b"1234"))[0]:
        time.sleep(0.01)  # The short-cut waits for what TCP carries.
    page, length = MissingPage(), 0

    def read() -> None:
        nonlocal length
        select.select([server], [], [])
        length = server.recv_into(page.memory)

    reader = threading.Thread(target=read)
    reader.start()
    page.wait_for_use()
    writers = [threading.Thread(target=client.send, args=(ping(number),)) for number in (1, 2)]
    for each in writers:
        each.start()
        deadline = time.monotonic() + SETTLE_SECONDS
        while state(each) != "D" and time.monotonic() < deadline:
            time.sleep(0.01)
        if state(each) != "D":
            problems.append("a writer did not wait for its reader's lock")
    page.give()
    for each in (reader, *writers):
        each.join()
    received = page.memory[:length]
    received += sockets.receive(server, 3 * len(ping(0)) - len(received))
    if received != ping(0) + ping(1) + ping(2):
        problems.append(f"of two writers came {received.hex()}")
    client.close()
    server.close()
    return problems


def state(thread: threading.Thread) -> str:
    try:
        return Path(f"/proc/self/task/{thread.native_id}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return "ended"
