"""Connections whose readers do not read: `python tests/support/stall.py CONNECTIONS PIECE BUFFERED`.

Both ends are in this process. Each writer writes pieces of PIECE bytes until the kernel takes no more; BUFFERED is
"small" (fixed buffers) or "default". Prints {"queued", "errors"}, waits for a line on stdin, drains everything,
compares it and prints {"wrong", "longest_wait"}.
"""

from __future__ import annotations

import errno
import json
import resource
import select
import socket
import sys
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent / "parity"))

from harness import Scene, content

LONGEST_WAIT = 20.0
PATTERN = content(1 << 20, 3)


def fill(writers: list[socket.socket], piece: int) -> tuple[list[int], Counter[str]]:
    """Until no writer has got rid of a byte for a while; what each has written, and errors by name."""
    queued = [0] * len(writers)
    errors: Counter[str] = Counter()
    quiet_since = time.monotonic()
    while time.monotonic() - quiet_since < 0.5:
        before = sum(queued)
        for i, writer in enumerate(writers):
            at = queued[i] % len(PATTERN)
            try:
                queued[i] += writer.send(PATTERN[at : at + piece])
                quiet_since = time.monotonic()
            except OSError as error:
                errors[errno.errorcode[error.errno or 0]] += 1
        if sum(queued) == before:
            time.sleep(0.01)
    return queued, errors


def drain(reader: socket.socket, size: int, scene: Scene) -> tuple[bool, float]:
    """Whether exactly what was written comes out, and the longest wait for more, in seconds."""
    got = bytearray()
    longest = 0.0
    while len(got) < size:
        begun = time.monotonic()
        if not scene.wait(reader, select.POLLIN, LONGEST_WAIT):
            return False, LONGEST_WAIT
        longest = max(longest, time.monotonic() - begun)
        part = reader.recv(min(size - len(got), 65536))
        if not part:
            return False, longest
        got += part
    expected = PATTERN * (size // len(PATTERN) + 1)
    return got == expected[:size], longest


def main() -> None:
    connections, piece, buffered = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    resource.setrlimit(resource.RLIMIT_NOFILE, (16384, 16384))
    options = {"receive": 32768, "send": 32768} if buffered == "small" else {}
    scene = Scene("nonblocking")
    pairs = [scene.pair(**options) for _ in range(connections)]
    for _ in range(2):  # so that everything has been acknowledged once and the short-cut is open
        for writer, reader in pairs:
            writer.send(b"w")
            scene.read(reader, 1)
            reader.send(b"w")
            scene.read(writer, 1)
        time.sleep(0.1)
    queued, errors = fill([writer for writer, _ in pairs], piece)
    print(json.dumps({"queued": queued, "errors": errors}), flush=True)
    sys.stdin.readline()
    drained = [drain(reader, queued[i], scene) for i, (_, reader) in enumerate(pairs)]
    wrong = [i for i, (right, _) in enumerate(drained) if not right]
    print(json.dumps({"wrong": wrong, "longest_wait": max(wait for _, wait in drained)}), flush=True)


main()
