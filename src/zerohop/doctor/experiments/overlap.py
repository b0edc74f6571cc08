"""A segment that begins with bytes that came before.

TCP makes them when it retransmits and sends on at the same time, or when the receiver's backlog joins a retransmission
with what follows it (tcp_add_backlog). tcp_recvmsg() skips what is not new, the way into a sockhash's member
(tcp_read_skb) does not: the receiver hook has to.
"""

from __future__ import annotations

from typing import Final

from zerohop.doctor.checks import Unknown
from zerohop.doctor.scene import Pair, Scene
from zerohop.doctor.segment import bytes_sent_by_tcp, inject
from zerohop.doctor.stream import Stream

_FRESH: Final = 2000  # bytes; more than TCP_ONLY_ABOVE, so that their own sender sends them by TCP too
_OLD: Final = (1, 1448, 4095, 4096, 60_000)  # bytes that came before, in front of the fresh ones


def overlap(scene: Scene) -> str:
    pair = scene.pair(scene.listen())
    for old in _OLD:
        for stream in (pair.up, pair.down):
            scene.step(f"{old} bytes again, {stream.name}")
            repeat(pair, stream, old)
    pair.exchange(1000)
    return f"{2 * len(_OLD)} segments began with up to {max(_OLD)} bytes that had come before; nobody read them twice"


def repeat(pair: Pair, stream: Stream, old: int) -> None:
    """The last `old` bytes once more with fresh ones behind them; raises `Broken` unless only those are received."""
    stream.send_by_tcp(max(old, _FRESH))
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
    # Now their sender sends them, which TCP sees as a retransmission: both ends agree on the numbers again.
    stream.sent -= _FRESH
    stream.send_by_tcp(_FRESH)
    stream.acknowledged()
