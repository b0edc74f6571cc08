"""What the scenarios are written with. A scenario makes socket calls on both ends of a connection and notes results.

The whole list runs with and without zerohop, and the notes are compared. So nothing that depends on timing is noted as
it is: `arrive` waits for bytes before they are counted, times are noted as "soon" or "late".
"""

from __future__ import annotations

import array
import contextlib
import ctypes
import errno
import fcntl
import hashlib
import os
import select
import socket
import struct
import termios
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

SOON = 2.0  # seconds within which what should happen happens
QUIET = 0.08  # seconds after which what has not happened does not

libc = ctypes.CDLL(None, use_errno=True)

# Non-blocking from the start; the same, and everything sent has been acknowledged before the scenario begins, so that
# its first byte may take the short-cut; blocking; non-blocking until both ends are established, blocking from then on.
MODES = ("nonblocking", "warm", "blocking", "turned")

Scenario = Callable[["Scene"], None]
scenarios: dict[str, tuple[tuple[str, ...], Scenario]] = {}


def scenario(*modes: str) -> Callable[[Scenario], Scenario]:
    """Registers a scenario under its name with dashes; for some modes or for all."""

    def register(function: Scenario) -> Scenario:
        scenarios[function.__name__.replace("_", "-")] = (modes or MODES, function)
        return function

    return register


POLL_NAMES = {
    select.POLLIN: "IN",
    select.POLLPRI: "PRI",
    select.POLLOUT: "OUT",
    select.POLLERR: "ERR",
    select.POLLHUP: "HUP",
    select.POLLRDHUP: "RDHUP",
    select.POLLNVAL: "NVAL",
}


def event_names(mask: int) -> list[str]:
    return [name for bit, name in POLL_NAMES.items() if mask & bit]


def digest(data: bytes) -> str:
    return f"{len(data)}:{hashlib.sha256(data).hexdigest()[:12]}"


def content(size: int, seed: int = 0) -> bytes:
    """Bytes of which no two neighbourhoods look alike."""
    blocks = (hashlib.sha256(struct.pack("QQ", seed, i)).digest() for i in range(size // 32 + 1))
    return b"".join(blocks)[:size]


def simplify(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode("latin-1") if len(value) <= 32 else digest(value)
    if isinstance(value, list | tuple):
        return [simplify(each) for each in value]
    return value


class Scene:
    """One run of one scenario in one mode."""

    def __init__(self, mode: str) -> None:
        self.mode = mode
        self.notes: list[Any] = []
        self._open: list[socket.socket] = []

    @property
    def blocking(self) -> bool:
        return self.mode in ("blocking", "turned")

    def note(self, label: str, value: Any) -> None:
        self.notes.append([label, simplify(value)])

    def attempt(self, label: str, function: Callable[..., Any], *arguments: Any) -> Any:
        """Notes what the call returns, or its errno; returns it, or None."""
        try:
            value = function(*arguments)
        except OSError as error:
            name = errno.errorcode.get(error.errno or 0, str(error))
            self.note(label, "time-out" if isinstance(error, TimeoutError) and not error.errno else name)
            return None
        self.note(label, value)
        return value

    # Connections

    def listener(self, family: int = socket.AF_INET, host: str = "", **options: Any) -> socket.socket:
        made = self.fresh(family, **options)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        made.bind((host or ("127.0.0.1" if family == socket.AF_INET else "::"), 0))
        made.listen(16)
        return made

    def fresh(
        self, family: int = socket.AF_INET, *, receive: int = 0, send: int = 0, nodelay: bool = False
    ) -> socket.socket:
        """A socket of this mode as it is before it connects or listens."""
        made = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        made.setblocking(self.mode == "blocking")
        if receive:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive)
        if send:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send)
        if nodelay:
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._open.append(made)
        return made

    def connect(self, client: socket.socket, address: Any) -> None:
        with contextlib.suppress(BlockingIOError):
            client.connect(address)
        self.wait(client, select.POLLOUT)

    def accept(self, listener: socket.socket) -> socket.socket:
        self.wait(listener, select.POLLIN)
        # Python's accept makes a blocking socket; accept4 with the flag is what event loops use.
        flags = 0 if self.mode == "blocking" else socket.SOCK_NONBLOCK
        fd = libc.accept4(listener.fileno(), None, None, flags | socket.SOCK_CLOEXEC)
        if fd < 0:
            raise OSError(ctypes.get_errno(), "accept4")
        made = socket.socket(fileno=fd)
        made.setblocking(self.mode == "blocking")
        self._open.append(made)
        return made

    def settle(self, *ends: socket.socket) -> None:
        """What happens to both ends once they are established."""
        if self.mode == "turned":
            for end in ends:
                end.setblocking(True)

    def pair(
        self, family: int = socket.AF_INET, target: str = "", **options: Any
    ) -> tuple[socket.socket, socket.socket]:
        """Client and server end of a fresh connection."""
        with self.listener(family, **options) as listening:
            connect_family = socket.AF_INET if target == "127.0.0.1" else family
            client = self.fresh(connect_family, **options)
            host = target or ("127.0.0.1" if family == socket.AF_INET else "::1")
            self.connect(client, (host, listening.getsockname()[1]))
            server = self.accept(listening)
        self.settle(client, server)
        if self.mode == "warm":
            self.exchange(client, server)
        return client, server

    def exchange(self, client: socket.socket, server: socket.socket) -> None:
        """A byte there and one back, and time for the delayed acknowledgement."""
        for end, other in ((client, server), (server, client)):
            end.send(b"w")
            self.read(other, 1)
        time.sleep(QUIET)

    # Waiting

    def wait(self, end: socket.socket, mask: int, seconds: float = SOON) -> list[str]:
        """Polls until one of the events is there; its names."""
        poll = select.poll()
        poll.register(end, mask)
        for _, found in poll.poll(seconds * 1000):
            return event_names(found)
        return []

    def events(self, end: socket.socket, mask: int = 0) -> list[str]:
        """Everything that poll says at this moment."""
        everything = select.POLLIN | select.POLLOUT | select.POLLPRI | select.POLLRDHUP
        return self.wait(end, mask or everything, 0)

    def until(self, end: socket.socket, name: str) -> list[str]:
        """Polls until the event shows; what poll says then (or in the end)."""
        deadline = time.monotonic() + SOON
        while name not in self.events(end) and time.monotonic() < deadline:
            time.sleep(0.002)
        return self.events(end)

    def unread(self, end: socket.socket) -> int:
        value = array.array("i", [0])
        fcntl.ioctl(end, termios.FIONREAD, value)
        return value[0]

    def arrive(self, end: socket.socket, size: int) -> int:
        """Waits until that many bytes can be read; FIONREAD then."""
        deadline = time.monotonic() + SOON
        while self.unread(end) < size and time.monotonic() < deadline:
            time.sleep(0.001)
        return self.unread(end)

    def quiet(self) -> None:
        time.sleep(QUIET)

    # Whole streams

    def read(self, end: socket.socket, size: int) -> bytes:
        """Exactly that many bytes, or what came before the end, an error, or a long pause."""
        data = bytearray()
        while len(data) < size and self.wait(end, select.POLLIN):
            try:
                part = end.recv(min(size - len(data), 1 << 16))
            except BlockingIOError:
                continue
            except OSError:
                break
            if not part:
                break
            data += part
        return bytes(data)

    def write(self, end: socket.socket, data: bytes) -> int:
        sent = 0
        while sent < len(data) and self.wait(end, select.POLLOUT):
            with contextlib.suppress(BlockingIOError):
                sent += end.send(data[sent:], socket.MSG_DONTWAIT)
        return sent

    def fill(self, end: socket.socket, piece: int = 4096) -> int:
        """Writes until the kernel takes no more, for good; how many bytes."""
        sent, quiet_since = 0, time.monotonic()
        data = content(piece, 7)
        while time.monotonic() - quiet_since < 0.25:
            try:
                sent += end.send(data, socket.MSG_DONTWAIT)
                quiet_since = time.monotonic()
            except BlockingIOError:
                time.sleep(0.005)
        return sent

    # In the background

    @contextlib.contextmanager
    def background(self, label: str, function: Callable[..., Any], *arguments: Any) -> Iterator[None]:
        """Runs the call in a thread meanwhile; notes its result, and whether it came soon after the block."""

        def call() -> None:
            self_notes.append(self._result(function, *arguments))

        self_notes: list[Any] = []
        thread = threading.Thread(target=call, daemon=True)
        thread.start()
        time.sleep(QUIET)
        early = bool(self_notes)
        yield
        thread.join(SOON)
        result = self_notes[0] if self_notes else "still waiting"
        self.note(label, ["returned before", result] if early else result)

    def _result(self, function: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return simplify(function(*arguments))
        except OSError as error:
            return errno.errorcode.get(error.errno or 0, str(error))

    def child(self, function: Callable[[], None]) -> int:
        """A forked process that ends with the function."""
        pid = os.fork()
        if pid == 0:
            try:
                function()
            finally:
                os._exit(0)
        return pid

    def close(self) -> None:
        for each in self._open:
            with contextlib.suppress(OSError):
                each.close()
