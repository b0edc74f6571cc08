"""Scenarios: socket options, addresses, what the kernel tells about a connection."""

from __future__ import annotations

import errno
import fcntl
import socket
import struct
import termios
import time

from harness import QUIET, Scene, content, libc, scenario

TCP_INQ = 36
TCP_CM_INQ = 36
TCP_ULP = 31
SO_PEEK_OFF = 42
SO_TIMESTAMPNS = 35
SO_TIMESTAMPING = 37
TIMESTAMPING_TX_SOFTWARE, TIMESTAMPING_SOFTWARE, TIMESTAMPING_TX_ACK = 2, 16, 512
AF_UNSPEC = 0
STATES = {1: "ESTABLISHED", 4: "FIN_WAIT1", 5: "FIN_WAIT2", 7: "CLOSE", 8: "CLOSE_WAIT", 9: "LAST_ACK"}


def state_of(end: socket.socket) -> str:
    number = end.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]
    return STATES.get(number, str(number))


@scenario()
def addresses(scene: Scene) -> None:
    for family, target in (
        (socket.AF_INET, "127.0.0.1"),
        (socket.AF_INET6, "::1"),
        (socket.AF_INET6, "127.0.0.1"),
    ):
        client, server = scene.pair(family, target)
        for end, other in ((client, server), (server, client)):
            here, there = end.getsockname(), other.getpeername()
            scene.note("same port", here[1] == there[1])
            scene.note("address", [here[0], there[0], *here[2:]])
        client.send(b"hello")
        scene.note("arrived", scene.read(server, 5))
        client.close()
        scene.until(server, "RDHUP")
        scene.attempt("peer after its close", lambda end=server: end.getpeername()[0])


@scenario()
def descriptions(scene: Scene) -> None:
    client, server = scene.pair()
    for end in (client, server):
        for name in ("SO_TYPE", "SO_DOMAIN", "SO_PROTOCOL", "SO_ACCEPTCONN", "SO_ERROR", "SO_KEEPALIVE"):
            scene.note(name, end.getsockopt(socket.SOL_SOCKET, getattr(socket, name)))
        scene.note("cookie", end.getsockopt(socket.SOL_SOCKET, 57, 8) != bytes(8))
        scene.note("protocol", [end.getsockopt(socket.IPPROTO_TCP, option) for option in (1, 3, 9)])
        scene.attempt("connect again", end.connect, ("127.0.0.1", 9))
        scene.attempt("bind again", end.bind, ("127.0.0.1", 0))
        scene.attempt("listen", end.listen, 1)


@scenario()
def upper_layer(scene: Scene) -> None:
    client, server = scene.pair()
    scene.attempt("no such protocol", client.setsockopt, socket.IPPROTO_TCP, TCP_ULP, b"nosuch")
    client.send(b"plain")
    scene.note("arrived", scene.read(server, 5))


@scenario()
def states(scene: Scene) -> None:
    client, server = scene.pair()
    scene.note("open", [state_of(client), state_of(server)])
    client.send(b"x")
    scene.read(server, 1)
    client.shutdown(socket.SHUT_WR)
    scene.until(server, "RDHUP")
    scene.quiet()
    scene.note("half-closed", [state_of(client), state_of(server)])
    server.send(b"y")
    scene.note("arrived", scene.read(client, 1))
    server.shutdown(socket.SHUT_WR)
    scene.until(server, "HUP")
    scene.quiet()
    scene.note("closed at the server", state_of(server))


@scenario()
def byte_counts(scene: Scene) -> None:
    """TCP_INFO: tcpi_bytes_acked, tcpi_bytes_received."""
    client, server = scene.pair()
    for _ in range(10):
        client.send(content(100))
        scene.read(server, 100)
    scene.quiet()
    acked = struct.unpack_from("Q", client.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 200), 120)[0]
    received = struct.unpack_from("Q", server.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 200), 128)[0]
    scene.note("acknowledged all", acked >= 1000)
    scene.note("received all", received >= 1000)


@scenario()
def receive_time_stamps(scene: Scene) -> None:
    client, server = scene.pair()
    server.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
    time.sleep(QUIET)  # the kernel switches the stamps on a little later
    client.send(b"stamped")
    scene.arrive(server, 7)
    data, ancillary, flags, _ = server.recvmsg(100, 256)
    scene.note("received", data)
    scene.note("flags", flags)
    scene.note("stamps", [[level, kind] for level, kind, _ in ancillary])


@scenario()
def send_time_stamps(scene: Scene) -> None:
    client, server = scene.pair()
    wanted = TIMESTAMPING_SOFTWARE | TIMESTAMPING_TX_SOFTWARE | TIMESTAMPING_TX_ACK
    client.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPING, wanted)
    client.send(b"stamped")
    scene.note("arrived", scene.read(server, 7))
    time.sleep(QUIET)
    stamps = 0
    try:
        while client.recvmsg(100, 512, socket.MSG_ERRQUEUE | socket.MSG_DONTWAIT)[1]:
            stamps += 1
    except BlockingIOError:
        pass
    scene.note("stamps", stamps)


@scenario()
def low_water_mark(scene: Scene) -> None:
    client, server = scene.pair()
    server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 100)
    client.send(content(50))
    scene.arrive(server, 50)
    scene.quiet()
    scene.note("below", scene.events(server))
    client.send(content(60))
    scene.arrive(server, 110)
    scene.note("above", scene.events(server))
    scene.attempt("received", server.recv, 200, socket.MSG_DONTWAIT)


@scenario()
def peek_offset(scene: Scene) -> None:
    client, server = scene.pair()
    scene.attempt("set", server.setsockopt, socket.SOL_SOCKET, SO_PEEK_OFF, 0)
    client.send(b"0123456789")
    scene.arrive(server, 10)
    scene.attempt("first", server.recv, 4, socket.MSG_PEEK)
    scene.attempt("second", server.recv, 4, socket.MSG_PEEK)
    scene.attempt("read", server.recv, 2)
    scene.attempt("third", server.recv, 4, socket.MSG_PEEK | socket.MSG_DONTWAIT)


@scenario()
def queue_length_with_the_data(scene: Scene) -> None:
    """TCP_INQ."""
    client, server = scene.pair()
    scene.attempt("ask for it", server.setsockopt, socket.IPPROTO_TCP, TCP_INQ, 1)
    client.send(b"0123456789")
    scene.arrive(server, 10)
    data, ancillary, _, _ = server.recvmsg(4, 256)
    scene.note("received", data)
    scene.note("rest", [struct.unpack("i", value)[0] for _, kind, value in ancillary if kind == TCP_CM_INQ])


@scenario()
def urgent_data(scene: Scene) -> None:
    client, server = scene.pair()
    client.send(b"before")
    scene.arrive(server, 6)
    scene.attempt("send", client.send, b"!", socket.MSG_OOB)
    scene.quiet()
    scene.note("events", scene.events(server))
    scene.attempt("urgent", server.recv, 1, socket.MSG_OOB)
    client.send(b"after")
    scene.quiet()
    scene.note("at the mark", fcntl.ioctl(server, 0x8905, b"\0" * 4))
    scene.attempt("received", server.recv, 100, socket.MSG_DONTWAIT)
    scene.attempt("then", server.recv, 100, socket.MSG_DONTWAIT)


@scenario()
def urgent_data_inline(scene: Scene) -> None:
    client, server = scene.pair()
    server.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)
    client.send(b"ab!", socket.MSG_OOB)
    client.send(b"cd")
    scene.note("arrived", scene.read(server, 5))


@scenario()
def receive_buffer_changes(scene: Scene) -> None:
    client, server = scene.pair()
    client.send(content(3000))
    scene.arrive(server, 3000)
    for size in (4096, 200_000):
        server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, size)
        scene.note("size", server.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF))
        client.send(content(1000, size))
    scene.note("arrived", scene.read(server, 5000))


@scenario()
def reused_after_disconnect(scene: Scene) -> None:
    """connect(AF_UNSPEC) dissolves the association; the socket can connect again."""
    listening = scene.listener()
    client = scene.fresh()
    scene.connect(client, listening.getsockname())
    first = scene.accept(listening)
    client.send(b"first")
    scene.note("arrived", scene.read(first, 5))
    scene.note("disconnect", libc.connect(client.fileno(), struct.pack("H14x", AF_UNSPEC), 16))
    scene.note("the server sees", scene.until(first, "RDHUP"))
    scene.attempt("name of nobody", client.getpeername)
    scene.connect(client, listening.getsockname())
    second = scene.accept(listening)
    scene.attempt("send", client.send, b"second")
    scene.note("arrived", scene.read(second, 6))


@scenario()
def refused(scene: Scene) -> None:
    with scene.listener() as listening:
        address = listening.getsockname()
    client = scene.fresh()
    if scene.mode == "blocking":
        scene.attempt("connect", client.connect, address)
    else:
        scene.note("connect", errno.errorcode[client.connect_ex(address)])
        scene.note("events", scene.until(client, "ERR"))
        scene.note("error", client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))
    scene.attempt("send", client.send, b"x")


@scenario()
def unread_by_another_name(scene: Scene) -> None:
    client, server = scene.pair()
    client.send(b"12345")
    scene.arrive(server, 5)
    value = fcntl.ioctl(server, termios.TIOCINQ, b"\0" * 4)
    scene.note("TIOCINQ", struct.unpack("i", value)[0])


@scenario()
def early_data(scene: Scene) -> None:
    """Bytes that came before accept."""
    listening = scene.listener()
    client = scene.fresh()
    scene.connect(client, listening.getsockname())
    client.send(b"before ")
    scene.quiet()
    server = scene.accept(listening)
    scene.settle(client, server)
    scene.note("unread", scene.arrive(server, 7))
    client.send(b"after")
    scene.note("unread", scene.arrive(server, 12))
    scene.attempt("received", server.recv, 100)


@scenario()
def deferred_accept(scene: Scene) -> None:
    listening = scene.listener()
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, 2)
    client = scene.fresh()
    scene.connect(client, listening.getsockname())
    client.send(b"before ")
    server = scene.accept(listening)
    scene.settle(client, server)
    scene.note("events", scene.events(server))
    client.send(b"after")
    scene.note("unread", scene.arrive(server, 12))
    scene.attempt("received", server.recv, 100)
