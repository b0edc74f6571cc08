"""What setsockopt answers on both ends of a connection: `python tests/support/options.py`; prints one JSON object."""

from __future__ import annotations

import errno
import json
import socket
import struct
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent / "parity"))

from harness import Scene

TCP_ULP = 31
CONGESTION_NAME_BYTES = 16
LONG = 10_000  # bytes: more than the page that a hook can see of an option

OPTIONS: dict[str, tuple[int, int, bytes]] = {
    "small": (socket.SOL_SOCKET, socket.SO_SNDBUF, struct.pack("i", 50_000)),
    "longer than a page": (socket.SOL_SOCKET, socket.SO_SNDBUF, struct.pack("i", 60_000) + bytes(LONG)),
    "empty": (socket.IPPROTO_TCP, socket.TCP_NODELAY, b""),
    "unknown": (socket.IPPROTO_TCP, 250, bytes(4)),
    "congestion": (socket.IPPROTO_TCP, socket.TCP_CONGESTION, b"reno"),
    "unknown protocol": (socket.IPPROTO_TCP, TCP_ULP, b"none"),
}


def answer(end: socket.socket, level: int, name: int, value: bytes) -> str:
    try:
        end.setsockopt(level, name, value)
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    return "done"


def main() -> None:
    scene = Scene("nonblocking")
    ends = scene.pair()
    scene.exchange(*ends)
    scene.exchange(*ends)
    found: dict[str, object] = {
        label: [answer(end, level, name, value) for end in ends] for label, (level, name, value) in OPTIONS.items()
    }
    found["buffers"] = [end.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) for end in ends]
    found["algorithms"] = [
        end.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, CONGESTION_NAME_BYTES).rstrip(bytes(1)).decode()
        for end in ends
    ]
    scene.exchange(*ends)
    print(json.dumps(found))


main()
