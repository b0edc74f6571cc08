"""Connections that do nothing while something happens to the mesh: `python tests/support/idle.py CONNECTIONS`.

Both ends are in this process; half of the connections have unread bytes. Prints "ready", waits for a line on stdin,
then reads what was unread, exchanges more, and prints {"wrong": [connection…]}: one with a byte that is wrong, or with
keep-alive probes that it did not ask for.
"""

from __future__ import annotations

import json
import socket
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent / "parity"))

from harness import Scene, content


def main() -> None:
    scene = Scene("nonblocking")
    pairs = [scene.pair() for _ in range(int(sys.argv[1]))]
    for client, server in pairs:
        scene.exchange(client, server)
    for i, (client, _) in enumerate(pairs):
        if i % 2:
            client.send(content(1000, i))
    idle = pairs[0][0].getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE)
    print("ready", flush=True)
    sys.stdin.readline()
    wrong = []
    for i, (client, server) in enumerate(pairs):
        good = not i % 2 or scene.read(server, 1000) == content(1000, i)
        for round_ in range(20):
            client.send(content(500, round_))
            good = good and scene.read(server, 500) == content(500, round_)
            server.send(content(700, round_))
            good = good and scene.read(client, 700) == content(700, round_)
        for each in (client, server):
            good = good and not each.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            good = good and each.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == idle
        if not good:
            wrong.append(i)
    print(json.dumps({"wrong": wrong}), flush=True)
    time.sleep(0.1)


main()
