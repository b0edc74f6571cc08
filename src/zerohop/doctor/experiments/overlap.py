"""A segment that begins with bytes that came before.

TCP makes them when it retransmits and sends on at the same time, or when the receiver's backlog joins a retransmission
with what follows it (tcp_add_backlog). tcp_recvmsg() skips what is not new, the way into a sockhash's member
(tcp_read_skb) does not: the receiver hook has to.
"""

from __future__ import annotations

import socket
import struct
from typing import Final

from zerohop.doctor.checks import Broken, Unknown
from zerohop.doctor.scene import Pair, Scene
from zerohop.doctor.segment import bytes_sent_by_tcp, inject
from zerohop.doctor.stream import TCP_ONLY_ABOVE, Stream

_FRESH: Final = 500  # bytes that come for the first time
_OLD: Final = (1, 1448, 4095, 4096, 60_000)  # bytes that came before, in front of the fresh ones
_RESET_AT_CLOSE: Final = struct.pack("ii", 1, 0)  # struct linger


def overlap(scene: Scene) -> str:
    listener = scene.listen()
    for old in _OLD:
        for up in (True, False):
            pair = scene.pair(listener)
            stream = pair.up if up else pair.down
            scene.step(f"{old} bytes again, {stream.name}")
            _repeat(pair, stream, old)
    return f"{2 * len(_OLD)} segments began with up to {max(_OLD)} bytes that had come before; nobody read them twice"


def _repeat(pair: Pair, stream: Stream, old: int) -> None:
    """The last `old` bytes once more with fresh ones behind them; raises `Broken` unless only those are received."""
    stream.send_by_tcp(max(old, TCP_ONLY_ABOVE + 1))
    stream.receive_all()
    stream.acknowledged()
    key = pair.record().ends[stream is pair.down].key
    try:
        inject(
            stream.sender,
            key.snd_nxt + bytes_sent_by_tcp(stream.sender) - old,
            key.rcv_nxt + bytes_sent_by_tcp(stream.receiver),
            bytes(stream.content(stream.sent - old, old + _FRESH)),
        )
    except OSError as error:
        raise Unknown(f"no segment can be made by hand: raw socket: {error.strerror}") from None
    stream.sent += _FRESH
    stream.receive_all()
    if stream.receive():
        raise Broken(f"{stream.name}: more bytes were received than were sent")
    # Its own sender knows nothing of those bytes, so the two cannot agree on an orderly end.
    for end in (pair.client, pair.server):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_AT_CLOSE)
        end.close()
