"""How a connection leaves the short-cut: from inside the kernel, losing nothing."""

from __future__ import annotations

import time
from typing import Final

from zerohop.doctor.checks import Broken
from zerohop.doctor.scene import Pair, Scene
from zerohop.doctor.stream import PATIENCE_SECONDS, queued

_BULK: Final = 1 << 21  # bytes; twice what bounds.h calls bulk
_CHUNK: Final = 1 << 16


class Stays(Broken):
    """An end does not leave the sockhash although nothing is queued."""


def leave(scene: Scene) -> str:
    """A one-way transfer leaves the sockhash while it runs."""
    pair = scene.pair(scene.listen())
    scene.step("one-way bulk")
    while pair.up.sent < _BULK:
        pair.up.send(_CHUNK)
        pair.up.receive()
    if pair.reason() != "bulk":
        raise Broken(f"{_BULK} bytes one way, and the connection does not leave; reason: {pair.reason()}")
    try:
        left = f"both ends left {1000 * _until_left(scene, pair):.0f} ms after the decision (bulk)"
    except Stays as answer:
        left = str(answer)  # what this costs is copied-seq's answer; here the bytes count
    scene.step("plain TCP after it")
    while pair.up.sent < 2 * _BULK:
        pair.up.send(_CHUNK)
        pair.up.receive()
    pair.up.receive_all()
    pair.exchange(1000)
    return f"{left}; {pair.up.received} bytes in order"


def copied_seq(scene: Scene) -> str:
    """A member that took redirected bytes can leave: its kernel does not count them as TCP's."""
    pair = scene.pair(scene.listen())
    for _ in range(20):
        pair.exchange(500)
    carried = pair.require_shortcut()
    scene.step("the client blocks: the connection leaves")
    pair.client.setblocking(True)
    pair.up.send_whole(1)
    pair.client.setblocking(False)
    _until_left(scene, pair)
    scene.step("TCP's count of what was read")
    pair.up.send_whole(5000)
    pair.up.acknowledged()
    seen = queued(pair.server)
    if seen != 5000:
        raise Broken(f"after leaving, FIONREAD says {seen} with 5000 bytes queued")
    pair.up.receive_all()
    pair.exchange(1000)
    return f"both ends left after {carried} redirected bytes; TCP's own count is whole"


def _until_left(scene: Scene, pair: Pair) -> float:
    """Small messages both ways until both ends have left; returns how long it took, in seconds."""
    scene.step("until both ends have left")
    begun = time.monotonic()
    pair.up.receive_all()
    while not pair.have_left():
        if time.monotonic() - begun > PATIENCE_SECONDS:
            raise Stays(
                f"with empty queues, an end stays in the sockhash; reason: {pair.reason()},"
                f" {pair.shortcut_bytes()} bytes had been redirected"
            )
        pair.exchange(100)
        time.sleep(0.005)
    return time.monotonic() - begun


def lost_target(scene: Scene) -> str:
    """The receiver vanishes from the sockhash: its sender's bytes go by TCP, and send does not fail."""
    pair = scene.pair(scene.listen())
    pair.exchange(500)
    carried = pair.require_shortcut()
    key_type = pair.lab.path.layouts.struct("end_key")
    key = pair.record().ends[1].key
    pair.lab.path.maps["sockets"].delete(key_type(key.snd_nxt, key.rcv_nxt))
    for _ in range(20):
        pair.exchange(500)
    return f"{carried} bytes past TCP before, {pair.shortcut_bytes() - carried} after; every send succeeded"
