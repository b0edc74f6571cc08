"""What programs see of queued bytes: FIONREAD, and splice."""

from __future__ import annotations

import errno
import os
import socket
import time
from typing import Final

from zerohop.doctor.checks import Broken
from zerohop.doctor.scene import Scene
from zerohop.doctor.stream import Stream, queued
from zerohop.errors import ZerohopError
from zerohop.kernel import seccomp

_TCP: Final = 2000
_SHORTCUT: Final = 500
_ARRIVAL_SECONDS: Final = 1.0


def fionread(scene: Scene) -> str:
    """FIONREAD at a member: for what TCP brought, for what was redirected, and for both together."""
    pair = scene.pair(scene.listen())
    stream = pair.up
    stream.open_room()
    scene.step("redirected data")
    before = pair.shortcut_bytes()
    stream.send_whole(_SHORTCUT)
    if pair.shortcut_bytes() - before != _SHORTCUT:
        raise Broken(f"{_SHORTCUT} bytes were not redirected; reason: {pair.reason()}")
    redirected = _settled(stream, _SHORTCUT)
    stream.receive_all()
    scene.step("TCP data")
    stream.send_by_tcp(_TCP)
    by_tcp = _settled(stream, _TCP)
    scene.step("both")
    stream.acknowledged()
    stream.send_whole(_SHORTCUT)
    both = _settled(stream, _TCP + _SHORTCUT)
    stream.receive_all()
    left = queued(stream.receiver)
    seen = f"redirected {redirected} of {_SHORTCUT}, TCP {by_tcp} of {_TCP}, both {both} of {_TCP + _SHORTCUT}"
    if (redirected, by_tcp, both, left) != (_SHORTCUT, _TCP, _TCP + _SHORTCUT, 0):
        raise Broken(f"FIONREAD says: {seen}, {left} when all is read")
    return f"FIONREAD says: {seen}"


def _settled(stream: Stream, expected: int) -> int:
    """FIONREAD once it says what is expected, or when time is up."""
    deadline = time.monotonic() + _ARRIVAL_SECONDS
    while (now := queued(stream.receiver)) != expected and time.monotonic() < deadline:
        time.sleep(0.001)
    return now


def splice(scene: Scene) -> str:
    """What splice from a member does, and that `zerohop exec` makes it answer EINVAL."""
    pair = scene.pair(scene.listen())
    pair.up.open_room()
    pair.up.send_whole(_SHORTCUT)
    pair.require_shortcut()
    scene.step("splice without the filter")
    plain = _splice(pair.server)
    if plain.isdecimal():
        pair.up.received += int(plain)
    scene.step("splice under the filter")
    try:
        seccomp.refuse_unserved(splice=True)
    except ZerohopError as error:
        raise Broken(f"splice answers {plain} with {_SHORTCUT} bytes queued; no filter: {error}") from None
    filtered = _splice(pair.server)
    seen = f"with {_SHORTCUT} bytes queued, splice answers {plain}; under zerohop exec {filtered}"
    if filtered != "EINVAL":
        raise Broken(seen)
    pair.up.receive_all()
    return f"{seen}, and recv gets them"


def _splice(connection: socket.socket) -> str:
    read_end, write_end = os.pipe2(os.O_NONBLOCK)
    try:
        return str(os.splice(connection.fileno(), write_end, _SHORTCUT, flags=os.SPLICE_F_NONBLOCK))
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    finally:
        os.close(read_end)
        os.close(write_end)
