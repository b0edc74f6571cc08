"""What the Python peers share: the methods' messages, the stories' sizes, and the tally that a client keeps."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Iterable, Sequence
from typing import Any, Final

import grpc

SERVICE: Final = "calls.Peer"

SIZES: Final = (0, 1, 100_000, 16 << 20)
STREAMED: Final = 3  # messages of each size in a stream
CONCURRENT: Final = 100
ENTRIES: Final = 200
STATUSES: Final = range(17)
REPEATS: Final = 10  # of each ending
TIMEOUTS: Final = (0.05, 0.1, 0.25, 0.5)
LOADED: Final = 8  # callers of the story `load`

CANCELLED: Final = 1
UNKNOWN: Final = 2
DEADLINE_EXCEEDED: Final = 4
RESOURCE_EXHAUSTED: Final = 8
UNIMPLEMENTED: Final = 12
INTERNAL: Final = 13
UNAVAILABLE: Final = 14

SUMS: Final = ("calls", "request_messages", "response_messages", "request_bytes", "response_bytes")

OPTIONS: Final = [
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.max_metadata_size", 1 << 16),
    ("grpc.absolute_max_metadata_size", 1 << 16),
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 100),
    # A call that is made again is another call to the kernel: peers want to see every one.
    ("grpc.enable_retries", 0),
]


def channel_options(arguments: Iterable[str]) -> list[tuple[str, int]]:
    """OPTIONS, with what the arguments of the form NAME=NUMBER say instead or besides."""
    asked = {name: int(value) for name, equals, value in (each.partition("=") for each in arguments) if equals}
    return list({**dict(OPTIONS), **asked}.items())


def path(method: str) -> str:
    return f"/{SERVICE}/{method}"


def message(size: int) -> bytes:
    """Cheap to make and to compare, not compressible, and the same in every language."""
    return (hashlib.shake_256(str(size).encode()).digest(min(size, 4_099)) * (size // 4_099 + 1))[:size]


def entries() -> tuple[tuple[str, str | bytes], ...]:
    """Metadata that nobody repeats, a fifth of it binary with every byte value in it."""
    every_byte = bytes(range(256))
    found: list[tuple[str, str | bytes]] = []
    for number in range(ENTRIES):
        if number % 5:
            found.append((f"x-entry-{number}", f"value {number} " + "v" * (number % 40)))
        else:
            found.append((f"x-entry-{number}-bin", every_byte[number : number + 1 + number % 50]))
    return tuple(found)


def pack_stream(count: int, size: int) -> bytes:
    return struct.pack("!II", count, size)


def unpack_stream(request: bytes) -> tuple[int, int]:
    count, size = struct.unpack("!II", request)
    return count, size


# To be cancelled: more than goes out when nobody reads.
ENDLESS: Final = pack_stream(10_000, 100_000)


def pack_sum(count: int, size: int) -> bytes:
    return struct.pack("!IQ", count, size)


def pack_number(number: int) -> bytes:
    return struct.pack("!I", number)


def unpack_number(data: bytes) -> int:
    return int(struct.unpack_from("!I", data)[0])


def check(what: str, found: object, expected: object) -> None:
    """Ends the program when they differ; long values are told by their length."""
    if found != expected:
        said = [f"{len(each)} bytes" if isinstance(each, bytes) else repr(each) for each in (found, expected)]
        raise SystemExit(f"{what}: {said[0]} came, not the {said[1]} expected")


# Paths that end without an answer, and how.
WITHOUT_ANSWER: Final = (
    (path("Crash"), UNKNOWN),
    (path("Missing"), UNIMPLEMENTED),
    ("/calls.Nobody/Missing", UNIMPLEMENTED),
)


PERMISSION_DENIED: Final = 7
DENIAL: Final = "RBAC: access denied"
CROWD: Final = 1_000
CROWD_SIZE: Final = 60_000


def caller(number: int) -> tuple[str, bool]:
    """Who makes call `number` of the story `denials`, and whether that one may."""
    return (f"good-{number % 7}", True) if number % 2 else (f"bad-{number % 5}", False)


def status_code(number: int) -> grpc.StatusCode:
    return next(code for code in grpc.StatusCode if code.value[0] == number)


def ending(remaining: float | None) -> str:
    """Why a call was ended by somebody else, by the time it had left. C-core ends one a little before its deadline."""
    return "expired" if remaining is not None and remaining < 0.05 else "cancelled"


class Tally:
    """Calls by path and status. Messages are given by their lengths; None: this call's are not known."""

    def __init__(self) -> None:
        self._counts: dict[tuple[str, int], dict[str, Any]] = {}
        self.uncertain = 0

    def add(self, path: str, status: int, requests: Sequence[int] | None, responses: Sequence[int] | None) -> None:
        line = self._line(path, status)
        line["calls"] += 1
        for kind, sizes in (("request", requests), ("response", responses)):
            for name, more in (
                (f"{kind}_messages", None if sizes is None else len(sizes)),
                (f"{kind}_bytes", None if sizes is None else sum(5 + size for size in sizes)),
            ):
                line[name] = None if more is None or line[name] is None else line[name] + more

    def add_compressed(self, path: str, status: int, requests: int, responses: int) -> None:
        """A call with so many messages of which the length on the wire is not known."""
        self.add(path, status, [0] * requests, [0] * responses)
        self._line(path, status).update(request_bytes=None, response_bytes=None)

    def add_expired(self, path: str, status: int, size: int) -> None:
        """A call whose deadline has passed: the server may have been first, and has cancelled it then."""
        check("deadline", status in (DEADLINE_EXCEEDED, CANCELLED), True)
        self.add(path, status, [size], [])

    def add_uncertain(self, path: str, status: int) -> None:
        """A call of which it is not known whether it was sent; there must be no certain one like it."""
        self._line(path, status).update(dict.fromkeys(SUMS))
        self.uncertain += 1

    def _line(self, path: str, status: int) -> dict[str, Any]:
        return self._counts.setdefault((path, status), dict.fromkeys(SUMS, 0))

    def show(self, **more: Any) -> None:
        """Prints what a client prints."""
        counts = [{"method": path, "grpc_status": status, **line} for (path, status), line in self._counts.items()]
        print(json.dumps({"counts": counts, "uncertain": self.uncertain, **more}), flush=True)
