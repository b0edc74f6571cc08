"""The order of bytes when short-cut and TCP mix.

The carrier is forced: a receiver whose buffer is tiny for a moment has no room, so TCP carries; a corked sender keeps
TCP's bytes unacknowledged; a client that writes before `accept` leaves acknowledged bytes where no verdict has seen
them; a full queue under a shrunk buffer parks TCP's bytes for the kernel's work item. After each, a small write would
overtake if the conditions of the redirect did not hold it back.
"""

from __future__ import annotations

import os
import random
import select
import socket
import threading
import time
from typing import Final

from zerohop.doctor.checks import Broken, Unknown
from zerohop.doctor.scene import Pair, Scene
from zerohop.doctor.stream import TCP_ONLY_ABOVE, Stream, wait

_SEED: Final = 7
_BUFFER: Final = 1 << 16  # of each socket, as the kernel counts it, bytes
_LEAD: Final = 1 << 17  # of one direction before the other, bytes: a one-way transfer would leave the short-cut


def order(scene: Scene) -> str:
    listener = scene.listen()
    scene.step("bytes that TCP has not had acknowledged")
    for _ in range(4):
        _behind_unacknowledged(scene.pair(listener))
    scene.step("bytes that no verdict has seen")
    for _ in range(4):
        _write_before_accept(scene, listener)
    scene.step("bytes parked for the work item")
    for _ in range(4):
        _behind_parked(scene.pair(listener))
    scene.step("random sizes and carriers")
    mixed = scene.pair(listener)
    _mix_at_random(mixed, steps=2000 if scene.quick else 50_000)
    scene.step("through back-pressure, by threads")
    pressed = scene.pair(listener)
    os.sched_setaffinity(0, scene.cpus)
    _press(pressed, total=(1 << 20) if scene.quick else (1 << 24))
    pairs = (mixed, pressed)
    switches = sum(pair.switches() for pair in pairs)
    if switches < 10:
        raise Unknown(f"the carrier changed only {switches} times; reason: {mixed.reason()}, {pressed.reason()}")
    total = sum(pair.up.received + pair.down.received for pair in pairs)
    return f"{total} bytes in order, while the carrier changed {switches} times"


def _behind_unacknowledged(pair: Pair) -> None:
    for stream in (pair.up, pair.down):
        stream.open_room()
        stream.sender.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 1)
        stream.send_by_tcp(TCP_ONLY_ABOVE + 800)
        stream.send_whole(100)
        stream.sender.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 0)
        stream.receive_all()


def _behind_parked(pair: Pair) -> None:
    stream = pair.up
    stream.open_room()
    for _ in range(4):
        stream.send_whole(2000)
    stream.receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
    stream.send_whole(TCP_ONLY_ABOVE + 800)
    stream.receiver.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
    stream.acknowledged()
    stream.open_room()
    stream.send_whole(100)
    stream.receive_all()


def _write_before_accept(scene: Scene, listener: socket.socket) -> Pair:
    client = scene.dial(listener.getsockname())
    unaccepted = Stream("client to server", client, client)
    for size in (1000, 1, 3000):
        unaccepted.send_whole(size)
    unaccepted.acknowledged()
    pair = Pair(scene.lab, client, scene.accept(listener))
    pair.up.sent = unaccepted.sent
    pair.up.send_whole(100)
    pair.up.receive_all()
    return pair


def _mix_at_random(pair: Pair, *, steps: int) -> None:
    """One thread, so that a seed gives the same steps each time; TCP carries whatever finds no room."""
    choose = random.Random(_SEED)
    _set_buffers(pair)
    for _ in range(steps):
        stream = choose.choice((pair.up, pair.down))
        action = choose.random()
        if action < 0.4:
            stream.send(choose.randint(1, 3000))
        elif action < 0.45:
            stream.send(choose.randint(1, _BUFFER))
        elif action < 0.5:
            stream.sender.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, choose.random() < 0.2)
        else:
            stream.receive(choose.randint(1, _BUFFER))
    for stream in (pair.up, pair.down):
        stream.sender.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 0)
        stream.receive_all()


def _press(pair: Pair, *, total: int) -> None:
    """Both directions at once through small buffers, with writers that are faster than their readers."""
    failures: list[Exception] = []

    def write(stream: Stream) -> None:
        choose = random.Random(_SEED)
        other = pair.down if stream is pair.up else pair.up
        while stream.sent < total and not failures:
            if stream.sent - other.sent > _LEAD and other.sent < total:
                time.sleep(0.0001)
            elif not stream.send(min(choose.choice((1, 100, 3000, 40_000)), total - stream.sent)):
                wait(stream.sender, select.POLLOUT, 0.1)

    def read(stream: Stream) -> None:
        choose = random.Random(_SEED + 1)
        idle = 0
        while stream.received < total and not failures:
            if stream.receive(choose.choice((1, 500, 8000, 100_000))):
                idle = 0
            elif not wait(stream.receiver, select.POLLIN, 0.1) and (idle := idle + 1) > 30:
                raise Broken(f"{stream.name}: nothing more to read after {stream.received} of {stream.sent} bytes")

    def guard(work: object, stream: Stream) -> None:
        assert callable(work)
        try:
            work(stream)
        except Exception as error:
            failures.append(error)

    _set_buffers(pair)
    threads = [
        threading.Thread(target=guard, args=(work, stream), daemon=True)
        for stream in (pair.up, pair.down)
        for work in (write, read)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


def _set_buffers(pair: Pair) -> None:
    for end in (pair.client, pair.server):
        for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
            end.setsockopt(socket.SOL_SOCKET, option, _BUFFER // 2)


def early_data(scene: Scene) -> str:
    """The client writes before the server accepts, with and without TCP_DEFER_ACCEPT."""
    carried = []
    for defer in (False, True):
        scene.step("TCP_DEFER_ACCEPT" if defer else "written before accept")
        pair = _write_before_accept(scene, scene.listen(defer=defer))
        for _ in range(10):
            pair.exchange(500)
        carried.append(pair.require_shortcut())
    return f"4001 bytes came first; then {carried[0]} bytes went past TCP, deferred: {carried[1]}"
