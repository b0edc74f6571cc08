"""Servers that say who they are, and a client that connects to an address and tells where it came.

`dialling.py serve NAME ADDRESS PORT`: says NAME to whoever comes; prints "ready".
`dialling.py dial ADDRESS PORT COUNT [MILLISECONDS]`: prints {"answers": {NAME: n}, "errors": {errno: n}, "peers":
[[address, port], …]}; connects so many times, or for that time, or until SIGTERM.
`dialling.py exchange ADDRESS PORT`: a UDP datagram there and back; prints the peer that answered.
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import json
import select
import signal
import socket
import sys
import time
from collections import Counter

from talker import wait


def family_of(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ipaddress.ip_address(address).version == 6 else socket.AF_INET


def serve(name: str, address: str, port: int) -> None:
    with (
        socket.create_server((address, port), family=family_of(address), dualstack_ipv6=address == "::") as listener,
        socket.socket(family_of(address), socket.SOCK_DGRAM) as datagrams,
    ):
        listener.setblocking(False)
        datagrams.bind((address, port))
        print("ready", flush=True)
        while True:
            for ready in select.select([listener, datagrams], [], [])[0]:
                if ready is datagrams:
                    datagrams.sendto(name.encode(), datagrams.recvfrom(100)[1])
                    continue
                with contextlib.suppress(OSError), listener.accept()[0] as connection:
                    connection.settimeout(5)
                    connection.sendall(name.encode())
                    connection.shutdown(socket.SHUT_WR)
                    connection.recv(100)


def dial(address: str, port: int) -> tuple[str, list[object]]:
    """What the server said, and whom the socket calls its peer."""
    with socket.socket(family_of(address)) as client:
        client.setblocking(False)
        code = client.connect_ex((address, port))
        if code not in (0, errno.EINPROGRESS):
            raise OSError(code, "connect")
        wait(client, "write")
        code = client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            raise OSError(code, "connected")
        peer = list(client.getpeername()[:2])
        wait(client, "read")
        return client.recv(100).decode(), peer


def dial_all(address: str, port: int, count: int, milliseconds: int = 0) -> None:
    answers: Counter[str] = Counter()
    errors: Counter[str] = Counter()
    peers: list[list[object]] = []
    deadline = time.monotonic() + milliseconds / 1000
    ended: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: ended.append(number))
    while not ended and (count > 0 or time.monotonic() < deadline):
        count -= 1
        try:
            name, peer = dial(address, port)
        except OSError as error:
            errors[errno.errorcode[error.errno or 0]] += 1
            continue
        answers[name] += 1
        if peer not in peers:
            peers.append(peer)
    print(json.dumps({"answers": answers, "errors": errors, "peers": peers}))


def exchange(address: str, port: int) -> None:
    with socket.socket(family_of(address), socket.SOCK_DGRAM) as client:
        client.connect((address, port))
        client.send(b"who")
        client.settimeout(10)
        print(json.dumps([client.recv(100).decode(), *client.getpeername()[:2]]))


if __name__ == "__main__":
    role, *words = sys.argv[1:]
    if role == "serve":
        serve(words[0], words[1], int(words[2]))
    elif role == "dial":
        dial_all(words[0], *map(int, words[1:]))
    else:
        exchange(words[0], int(words[1]))
