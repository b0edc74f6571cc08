"""Kills a reader that has unread data and measures how long its writer, who polls, does not know of it.

`python tests/support/death.py little|full|huge all|out` prints {"rounds", "median", "worst", "events"}, in seconds. The
writer polls edge-triggered, for EPOLLIN, EPOLLOUT and EPOLLRDHUP as event loops do, or for EPOLLOUT alone. It knows
when one of RDHUP, HUP or ERR comes, or when a write fails.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent / "parity"))

from harness import Scene

ROUNDS = 3
LONGEST = 15.0
KNOWS = select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR


def one_round(unread: str, watched: str) -> tuple[float, int]:
    scene = Scene("warm")
    small = {"receive": 16384, "send": 32768} if unread == "full" else {}
    writer, reader = scene.pair(**small)

    def child() -> None:
        writer.close()
        time.sleep(LONGEST * 2)

    if unread != "little":
        scene.fill(writer)
    else:
        writer.send(b"nobody reads this")
        scene.arrive(reader, 17)
    pid = scene.child(child)
    reader.close()
    epoll = select.epoll()
    both = select.EPOLLIN | select.EPOLLRDHUP if watched == "all" else 0
    epoll.register(writer, select.EPOLLOUT | select.EPOLLET | both)
    epoll.poll(0.05)
    begun = time.monotonic()
    os.kill(pid, signal.SIGKILL)
    seen = 0
    while time.monotonic() - begun < LONGEST and not seen & KNOWS:
        for _, mask in epoll.poll(0.05):
            seen |= mask
            if mask & select.EPOLLOUT:
                try:
                    writer.send(b"still there?", socket.MSG_NOSIGNAL)
                except BlockingIOError:
                    continue
                except OSError:
                    seen |= select.EPOLLERR
    took = time.monotonic() - begun
    os.waitpid(pid, 0)
    scene.close()
    return took, seen


def main() -> None:
    rounds = [one_round(sys.argv[1], sys.argv[2]) for _ in range(ROUNDS)]
    times = [took for took, _ in rounds]
    print(
        json.dumps(
            {
                "rounds": ROUNDS,
                "median": round(statistics.median(times), 4),
                "worst": round(max(times), 4),
                "events": sorted({mask for _, mask in rounds}),
            }
        )
    )


main()
