"""TCP segments made by hand, for what a well-behaved sender does too seldom to wait for."""

from __future__ import annotations

import socket
import struct
from typing import Final

_HEADER: Final = struct.Struct("!HHIIBBHHH")  # RFC 9293, section 3.1
_ACK_PUSH: Final = 0x18
_WINDOW: Final = 65535
_CHECKSUM_AT: Final = 16
_IPV6_CHECKSUM: Final = 7
_TCP_INFO_BYTES_SENT: Final = 200  # tcpi_bytes_sent; tcpi_bytes_retrans follows
_TCP_INFO_SIZE: Final = 216


def bytes_sent_by_tcp(connection: socket.socket) -> int:
    """Payload that TCP has sent for the first time, in bytes."""
    info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_SIZE)
    sent, again = struct.unpack_from("QQ", info, _TCP_INFO_BYTES_SENT)
    return int(sent - again)


def inject(connection: socket.socket, sequence: int, acknowledgement: int, content: bytes) -> None:
    """Sends one segment to the peer of `connection` as if that socket had sent it. Raises `OSError`."""
    source, target = connection.getsockname(), connection.getpeername()
    header = _HEADER.pack(
        source[1],
        target[1],
        sequence & 0xFFFFFFFF,
        acknowledgement & 0xFFFFFFFF,
        (_HEADER.size // 4) << 4,
        _ACK_PUSH,
        _WINDOW,
        0,
        0,
    )
    with socket.socket(connection.family, socket.SOCK_RAW, socket.IPPROTO_TCP) as raw:
        if connection.family == socket.AF_INET6:
            raw.setsockopt(socket.IPPROTO_IPV6, _IPV6_CHECKSUM, _CHECKSUM_AT)
        else:
            header = _with_checksum(source[0], target[0], header, content)
        raw.sendto(header + content, (target[0], 0))


def _with_checksum(source: str, target: str, header: bytes, content: bytes) -> bytes:
    length = len(header) + len(content)
    pseudo = socket.inet_aton(source) + socket.inet_aton(target) + struct.pack("!HH", socket.IPPROTO_TCP, length)
    covered = pseudo + header + content + b"\0" * (length % 2)
    total = sum(struct.unpack(f"!{len(covered) // 2}H", covered))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return header[:_CHECKSUM_AT] + struct.pack("!H", ~total & 0xFFFF) + header[_CHECKSUM_AT + 2 :]
