"""What an experiment plays on: network namespaces and connections between doctor's workloads, in one process.

A socket belongs to the cgroup in which its process was when it made it, so one process can hold both ends: it visits
the server's cgroup to listen and the client's to connect. With both ends in one thread, the steps of an experiment
happen in the order in which they are written.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import select
import socket
import struct
import subprocess
from collections.abc import Iterator
from typing import Any, Final

from zerohop.doctor.checks import Broken, Unknown
from zerohop.doctor.child import Step
from zerohop.doctor.laboratory import CLIENT, SERVER, Laboratory
from zerohop.doctor.stream import PATIENCE_SECONDS, Stream, wait
from zerohop.kernel import cgroup

_CLONE_NEWNET: Final = 0x40000000
_SO_COOKIE: Final = 57
_SIOCGIFFLAGS: Final = 0x8913
_SIOCSIFFLAGS: Final = 0x8914
_IFF_UP: Final = 1
_libc: Final = ctypes.CDLL(None, use_errno=True)


class Scene:
    """Made in an experiment's own process; nothing is given back, since the process ends."""

    def __init__(self, lab: Laboratory, step: Step, *, quick: bool) -> None:
        self.lab = lab
        self.step = step
        self.quick = quick
        self._inside = ""
        # One CPU: the data path prefers TCP towards a CPU that seems to sleep, which would blur what is looked at.
        self.cpus = os.sched_getaffinity(0)
        os.sched_setaffinity(0, {min(self.cpus)})
        self.new_namespace()

    # Namespaces

    def new_namespace(self) -> None:
        """Moves this process into a fresh network namespace with its loopback up."""
        if _libc.unshare(_CLONE_NEWNET) != 0:
            raise Unknown(f"no network namespace of its own: unshare: {os.strerror(ctypes.get_errno())}")
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
            request = struct.pack("16sh22x", b"lo", 0)
            flags = struct.unpack("16sh22x", fcntl.ioctl(control, _SIOCGIFFLAGS, request))[1]
            fcntl.ioctl(control, _SIOCSIFFLAGS, struct.pack("16sh22x", b"lo", flags | _IFF_UP))

    @contextlib.contextmanager
    def elsewhere(self) -> Iterator[None]:
        """For the block, this process is in another fresh network namespace."""
        home = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        self.new_namespace()
        try:
            yield
        finally:
            if _libc.setns(home, _CLONE_NEWNET) != 0:
                raise Unknown(f"no way back: setns: {os.strerror(ctypes.get_errno())}")
            os.close(home)

    def tool(self, *command: str, text: str = "") -> None:
        """Runs `ip` or `nft` in the current namespace; a missing or failing tool makes the answer `unknown`."""
        try:
            result = subprocess.run(command, input=text, capture_output=True, text=True, timeout=PATIENCE_SECONDS)
        except (FileNotFoundError, subprocess.TimeoutExpired) as error:
            raise Unknown(f"{command[0]} cannot be run: {error}") from None
        if result.returncode != 0:
            raise Unknown(f"{' '.join(command)}: {result.stderr.strip()[:200]}")

    # Sockets

    def listen(
        self,
        family: socket.AddressFamily = socket.AF_INET,
        address: str = "",
        port: int = 0,
        *,
        where: str = SERVER,
        dual: bool = False,
        defer: bool = False,
    ) -> socket.socket:
        """A non-blocking listener of workload `where`; `dual`: v4-mapped clients too, `defer`: TCP_DEFER_ACCEPT."""
        self._enter(where)
        listener = _socket(family)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, not dual)
        if defer:
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, 3)
        try:
            listener.bind((address or ("::1" if family == socket.AF_INET6 else "127.0.0.1"), port))
        except OSError as error:
            raise Unknown(f"cannot bind to {address or family.name}: {error.strerror}") from None
        listener.listen()
        return listener

    def dial(
        self, target: Any, family: socket.AddressFamily = socket.AF_INET, *, source: Any = None, where: str = CLIENT
    ) -> socket.socket:
        """A non-blocking, connected socket of workload `where`. `target`, `source`: socket addresses."""
        self._enter(where)
        client = _socket(family)
        if source is not None:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            client.bind(source)
        client.connect_ex(target)
        wait(client, select.POLLOUT, PATIENCE_SECONDS)
        number = client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if number:
            raise Unknown(f"cannot connect to {target}: {os.strerror(number)}")
        return client

    def accept(self, listener: socket.socket) -> socket.socket:
        """The next connection, non-blocking."""
        if not wait(listener, select.POLLIN, PATIENCE_SECONDS):
            raise Broken(f"no connection to accept within {PATIENCE_SECONDS:.0f} s")
        server, _ = listener.accept()
        server.setblocking(False)
        return server

    def pair(self, listener: socket.socket, **dialling: Any) -> Pair:
        """An established connection to `listener` on which each end has sent a first message (`dial`'s arguments)."""
        client = self.dial(dialling.pop("target", listener.getsockname()), listener.family, **dialling)
        made = Pair(self.lab, client, self.accept(listener))
        made.exchange(64)
        return made

    def _enter(self, where: str) -> None:
        if where != self._inside:
            cgroup.enter(self.lab.cgroup_of(where))
            self._inside = where


class Pair:
    """Both ends of one connection, a stream in each direction, and what the data path says of it."""

    def __init__(self, lab: Laboratory, client: socket.socket, server: socket.socket, *, start: int = 0) -> None:
        self.lab = lab
        self.client = client
        self.server = server
        self.up = Stream("client to server", client, server, start=start)
        self.down = Stream("server to client", server, client, start=start + 500_000)

    def exchange(self, size: int) -> None:
        """`size` bytes there, then `size` bytes back."""
        for stream in (self.up, self.down):
            stream.send_whole(size)
            stream.receive_all()

    def record(self) -> Any:
        """The kernel's `struct connection`; raises `Broken` when there is none."""
        cookie = struct.unpack("Q", self.client.getsockopt(socket.SOL_SOCKET, _SO_COOKIE, 8))[0]
        found = self.lab.path.maps["connections"].get(ctypes.c_uint64(cookie))
        if found is None:
            raise Broken("the data path did not see the connection: no sockops callback at its establishment")
        return found

    def shortcut_bytes(self) -> int:
        """Bytes that went past TCP so far, both directions together."""
        return sum(end.shortcut_bytes for end in self.record().ends)

    def require_shortcut(self) -> int:
        """`shortcut_bytes`; raises `Broken` when it is 0, with the data path's reason."""
        carried = self.shortcut_bytes()
        if not carried:
            raise Broken(f"no byte was short-cut; reason: {self.reason()}")
        return carried

    def reason(self) -> str:
        """Why the connection is not short-cut; `none` when it is."""
        number = self.record().reason
        return self.lab.path.layouts.enum("reason")(number).name.removeprefix("REASON_").lower()

    def switches(self) -> int:
        """How often the carrier changed between short-cut and TCP."""
        return sum(end.switches for end in self.record().ends)

    def have_left(self) -> bool:
        """Whether both ends have left the sockhash."""
        left = self.lab.path.layouts.enum("end_flag")["END_LEFT"]
        return all(end.flags & left for end in self.record().ends)


def _socket(family: socket.AddressFamily) -> socket.socket:
    try:
        made = socket.socket(family, socket.SOCK_STREAM)
    except OSError as error:
        raise Unknown(f"no {family.name} sockets here: {error.strerror}") from None
    made.setblocking(False)
    return made
