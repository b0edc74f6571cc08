"""Two threads that write at once: the hook notices it by what the kernel does with a message (bpf/mesh/writers.h)."""

from __future__ import annotations

import socket
import threading
import time

import sockets

from support.writers import ANSWER, OPENING, HeldRead, ping, wait_until_acknowledged, waits_for_lock

SETTLE_SECONDS = 2.0


def overlap(client: socket.socket, server: socket.socket) -> list[str]:
    """The second writes while the server holds its lock and the first waits for it. Nothing is judged: both may."""
    client.send(OPENING)
    problems = [] if sockets.receive(server, len(OPENING)) == OPENING else ["another opening"]
    server.send(ANSWER)
    sockets.receive(client, len(ANSWER))
    client.send(ping(0))
    wait_until_acknowledged(client)
    reader = HeldRead(server)
    writers = [threading.Thread(target=client.send, args=(ping(number),)) for number in (1, 2)]
    for each in writers:
        each.start()
        deadline = time.monotonic() + SETTLE_SECONDS
        while not stuck(each) and time.monotonic() < deadline:
            time.sleep(0.01)
        if not stuck(each):
            problems.append("a writer did not wait for its reader's lock")
    received = reader.release()
    for each in writers:
        each.join()
    received += sockets.receive(server, 3 * len(ping(0)) - len(received))
    if received != ping(0) + ping(1) + ping(2):
        problems.append(f"of two writers came {received.hex()}")
    client.close()
    server.close()
    return problems


def stuck(thread: threading.Thread) -> bool:
    try:
        return waits_for_lock(thread)
    except OSError:  # It has ended.
        return False
