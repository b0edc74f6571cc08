"""A slow reader slows its writer, within the buffers that TCP has."""

from __future__ import annotations

import select
import socket
from typing import Final

from zerohop.doctor.checks import Broken
from zerohop.doctor.laboratory import PLAIN
from zerohop.doctor.scene import Pair, Scene
from zerohop.doctor.stream import PATIENCE_SECONDS, wait

_BUFFER: Final = 1 << 16  # of each socket, as the kernel counts it, bytes
_CHUNK: Final = 1 << 12
_SETTLE_SECONDS: Final = 0.05


def back_pressure(scene: Scene) -> str:
    """A reader stalls: how much its writer can queue until EAGAIN, beside plain TCP."""
    scene.step("plain TCP")
    plain = _fill(scene.pair(scene.listen(where=PLAIN), where=PLAIN))
    scene.step("a member of the short-cut")
    pair = scene.pair(scene.listen())
    before = pair.shortcut_bytes()
    queued = _fill(pair)
    past_tcp = pair.shortcut_bytes() - before
    if not past_tcp:
        raise Broken(f"nothing of what was queued went past TCP; reason: {pair.reason()}")
    scene.step("the reader reads again")
    pair.up.receive_all()
    if not wait(pair.client, select.POLLOUT, PATIENCE_SECONDS):
        raise Broken("the writer is not told that there is room again")
    pair.exchange(1000)
    return f"EAGAIN after {queued} bytes, {past_tcp} of them past TCP (plain TCP: after {plain})"


def _fill(pair: Pair) -> int:
    """Writes until EAGAIN lasts; returns how many bytes were taken. Raises `Broken` beyond the two buffers."""
    for end in (pair.client, pair.server):
        for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
            end.setsockopt(socket.SOL_SOCKET, option, _BUFFER // 2)
    limit = 2 * _BUFFER + _CHUNK
    before = pair.up.sent
    while wait(pair.client, select.POLLOUT, _SETTLE_SECONDS):
        pair.up.send(_CHUNK)
        if pair.up.sent - before > limit:
            raise Broken(f"{pair.up.sent - before} bytes queued with no EAGAIN; both buffers hold {2 * _BUFFER}")
    return pair.up.sent - before
