"""Segments that begin with bytes that came before: `python tests/support/overlap.py ipv4|ipv6`.

Both ends are in this process, a connection for each round. Prints a list of {"old": how many bytes came before, "read":
"exact", "twice", "nothing" or "wrong", "send": what a later send at each end answers}.
"""

from __future__ import annotations

import contextlib
import errno
import json
import socket
import struct
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent / "parity"))

from harness import Scene, content

from zerohop.doctor.segment import bytes_sent_by_tcp, inject

OLD = (0, 1, 2, 1447, 1448, 4094, 4095, 4096, 8190, 30_000, 60_000)
FRESH = (1, 700, 3000)
REPAIR, REPAIR_QUEUE, QUEUE_SEQ, QUEUES, NO_PROBE = 19, 20, 21, (2, 1), -1


def next_numbers(end: socket.socket) -> tuple[int, int]:
    """The sequence numbers of the next byte to send and to receive."""
    numbers = []
    end.setsockopt(socket.IPPROTO_TCP, REPAIR, 1)
    for queue in QUEUES:
        end.setsockopt(socket.IPPROTO_TCP, REPAIR_QUEUE, queue)
        numbers.append(struct.unpack("I", end.getsockopt(socket.IPPROTO_TCP, QUEUE_SEQ, 4))[0])
    end.setsockopt(socket.IPPROTO_TCP, REPAIR, NO_PROBE)
    return numbers[0], numbers[1]


def read_for(end: socket.socket, seconds: float) -> bytes:
    taken = b""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            taken += end.recv(1 << 17)
        except BlockingIOError:
            time.sleep(0.002)
    return taken


def try_send(end: socket.socket) -> str:
    try:
        end.send(b"x")
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    return "taken"


def play(scene: Scene, family: int, old: int, fresh: int) -> dict[str, object]:
    client, server = scene.pair(family)
    scene.exchange(client, server)
    stream = content(old + fresh, old + fresh)
    begin, acknowledgement = next_numbers(client)
    sent_before = bytes_sent_by_tcp(client)
    # Without room for a short-cut they go by TCP, in pieces that the small window takes.
    server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
    taken = 0
    received = b""
    while taken < old:
        with contextlib.suppress(BlockingIOError):
            taken += client.send(stream[taken : min(old, taken + 4096)])
        received += read_for(server, 0.001)
    while len(received) < old:
        received += read_for(server, 0.01)
    server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 18)
    by_tcp = bytes_sent_by_tcp(client) - sent_before
    inject(client, begin + by_tcp - old, acknowledgement, stream)
    read = read_for(server, 0.05)
    if received != stream[:old]:
        answer = "wrong"
    else:
        answer = {stream: "twice", stream[old:]: "exact", b"": "nothing"}.get(read, "wrong")
    sent = [try_send(client), try_send(server)]
    # The client's TCP knows nothing of the fresh bytes, so the two cannot agree on an orderly end.
    for end in (client, server):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        end.close()
    return {"old": old, "fresh": fresh, "read": answer, "send": sent}


def main() -> None:
    scene = Scene("nonblocking")
    family = socket.AF_INET6 if sys.argv[1] == "ipv6" else socket.AF_INET
    print(json.dumps([play(scene, family, old, fresh) for old in OLD for fresh in FRESH]))


main()
