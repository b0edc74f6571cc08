"""Scenarios: poll, select, epoll in all its ways, signals."""

from __future__ import annotations

import fcntl
import os
import select
import signal
import socket
import threading
import time

from harness import QUIET, SOON, Scene, content, scenario

EPOLL_NAMES = {
    select.EPOLLIN: "IN",
    select.EPOLLPRI: "PRI",
    select.EPOLLOUT: "OUT",
    select.EPOLLERR: "ERR",
    select.EPOLLHUP: "HUP",
    select.EPOLLRDHUP: "RDHUP",
}


class Epoll:
    """An epoll that watches one end; `events` are of one wait, which is short unless something is expected."""

    def __init__(self, end: socket.socket, mask: int) -> None:
        self._epoll = select.epoll()
        self._epoll.register(end, mask)
        self._end = end

    def events(self, seconds: float = QUIET) -> list[str]:
        for _, found in self._epoll.poll(seconds):
            return [name for bit, name in EPOLL_NAMES.items() if found & bit]
        return []

    def soon(self) -> list[str]:
        return self.events(SOON)

    def change(self, mask: int) -> None:
        self._epoll.modify(self._end, mask)


@scenario()
def poll_of_a_fresh_connection(scene: Scene) -> None:
    client, server = scene.pair()
    scene.note("client", scene.events(client))
    scene.note("server", scene.events(server))


@scenario()
def poll_while_data_comes_and_goes(scene: Scene) -> None:
    client, server = scene.pair()
    client.send(b"abcdef")
    scene.note("data", scene.until(server, "IN"))
    server.recv(3)
    scene.note("half read", scene.events(server))
    server.recv(3)
    scene.note("all read", scene.events(server))
    client.send(b"again")
    scene.note("again", scene.until(server, "IN"))


@scenario()
def select_sets(scene: Scene) -> None:
    client, server = scene.pair()

    def sets() -> list[list[int]]:
        ends = [client, server]
        found = select.select(ends, ends, ends, 0)
        return [[ends.index(end) for end in each] for each in found]

    scene.note("fresh", sets())
    client.send(b"x")
    scene.arrive(server, 1)
    scene.note("data", sets())
    client.close()
    scene.until(server, "RDHUP")
    scene.note("closed", [len(each) for each in select.select([server], [server], [server], 0)])


@scenario()
def epoll_level(scene: Scene) -> None:
    client, server = scene.pair()
    epoll = Epoll(server, select.EPOLLIN | select.EPOLLRDHUP)
    scene.note("nothing", epoll.events())
    client.send(b"abc")
    scene.note("data", epoll.soon())
    scene.note("still", epoll.events())
    server.recv(1)
    scene.note("a part read", epoll.events())
    server.recv(10)
    scene.note("all read", epoll.events())
    client.shutdown(socket.SHUT_WR)
    scene.note("the end", epoll.soon())
    scene.note("still the end", epoll.events())


@scenario()
def epoll_edge(scene: Scene) -> None:
    client, server = scene.pair()
    epoll = Epoll(server, select.EPOLLIN | select.EPOLLOUT | select.EPOLLRDHUP | select.EPOLLET)
    scene.note("first", epoll.soon())
    scene.note("no more", epoll.events())
    client.send(b"abc")
    scene.note("data", epoll.soon())
    scene.note("only once", epoll.events())
    client.send(b"def")
    scene.note("more data", epoll.soon())
    server.recv(2)
    scene.note("a part read", epoll.events())
    client.send(b"ghi")
    scene.note("more after a part", epoll.soon())
    server.recv(100)
    scene.note("all read", epoll.events())
    client.shutdown(socket.SHUT_WR)
    scene.note("the end", epoll.soon())
    scene.note("the end once", epoll.events())


@scenario()
def epoll_edge_registered_late(scene: Scene) -> None:
    client, server = scene.pair()
    client.send(b"before")
    scene.arrive(server, 6)
    epoll = Epoll(server, select.EPOLLIN | select.EPOLLET)
    scene.note("what is there", epoll.soon())
    scene.note("once", epoll.events())
    epoll.change(select.EPOLLIN | select.EPOLLET)
    scene.note("armed again", epoll.soon())


@scenario()
def epoll_one_shot(scene: Scene) -> None:
    client, server = scene.pair()
    epoll = Epoll(server, select.EPOLLIN | select.EPOLLONESHOT)
    client.send(b"abc")
    scene.note("data", epoll.soon())
    client.send(b"def")
    scene.note("spent", epoll.events())
    epoll.change(select.EPOLLIN | select.EPOLLONESHOT)
    scene.note("armed again", epoll.soon())


@scenario()
def epoll_edge_writable(scene: Scene) -> None:
    client, server = scene.pair(receive=16384, send=32768)
    epoll = Epoll(client, select.EPOLLOUT | select.EPOLLET)
    scene.note("first", epoll.soon())
    sent = scene.fill(client)
    scene.note("full", epoll.events())
    scene.note("drained", len(scene.read(server, sent)) == sent)
    scene.note("room again", epoll.soon())


@scenario()
def epoll_of_two_ends(scene: Scene) -> None:
    """A ping-pong of 200 rounds driven by edges alone: a lost edge stands still."""
    client, server = scene.pair()
    epolls = {end: Epoll(end, select.EPOLLIN | select.EPOLLET) for end in (client, server)}
    rounds = 0
    client.send(b"x")
    for i in range(200):
        end = server if i % 2 == 0 else client
        if not epolls[end].soon():
            break
        end.recv(10)
        end.send(b"x")
        rounds += 1
    scene.note("rounds", rounds)


@scenario()
def epoll_in_a_thread(scene: Scene) -> None:
    client, server = scene.pair()
    found: list[list[str]] = []
    epoll = Epoll(server, select.EPOLLIN | select.EPOLLRDHUP)
    thread = threading.Thread(target=lambda: found.append(epoll.soon()))
    thread.start()
    time.sleep(QUIET)
    client.send(b"wake")
    thread.join()
    scene.note("woken by", found)


@scenario()
def epoll_woken_by_reset(scene: Scene) -> None:
    client, server = scene.pair()
    client.send(b"x")
    scene.read(server, 1)
    found: list[list[str]] = []
    epoll = Epoll(client, select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLET)
    epoll.events(0)
    thread = threading.Thread(target=lambda: found.append(epoll.soon()))
    thread.start()
    time.sleep(QUIET)
    server.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    server.close()
    thread.join()
    scene.note("woken by", found)


@scenario()
def nested_epoll(scene: Scene) -> None:
    client, server = scene.pair()
    inner, outer = select.epoll(), select.epoll()
    inner.register(server, select.EPOLLIN)
    outer.register(inner.fileno(), select.EPOLLIN)
    scene.note("nothing", len(outer.poll(QUIET)))
    client.send(b"x")
    scene.note("data", len(outer.poll(SOON)))
    server.recv(1)
    scene.note("read", len(outer.poll(QUIET)))


@scenario()
def signal_driven(scene: Scene) -> None:
    """O_ASYNC: SIGIO when data comes."""
    client, server = scene.pair()
    signals: list[int] = []
    signal.signal(signal.SIGIO, lambda number, _: signals.append(number))
    fcntl.fcntl(server, fcntl.F_SETOWN, os.getpid())
    flags = fcntl.fcntl(server, fcntl.F_GETFL)
    fcntl.fcntl(server, fcntl.F_SETFL, flags | os.O_ASYNC)
    client.send(b"x")
    time.sleep(QUIET)
    scene.note("signalled", len(signals) > 0)
    scene.note("received", scene.read(server, 1))


@scenario()
def writable_with_a_slow_reader(scene: Scene) -> None:
    """A writer that waits for POLLOUT, a reader that takes little at a time: everything arrives."""
    client, server = scene.pair(receive=8192, send=16384)
    data = content(400_000)
    sent, received = 0, bytearray()
    deadline = time.monotonic() + 8
    while len(received) < len(data) and time.monotonic() < deadline:
        if sent < len(data) and "OUT" in scene.events(client):
            sent += client.send(data[sent : sent + 30_000], socket.MSG_DONTWAIT)
        if "IN" in scene.events(server):
            received += server.recv(700, socket.MSG_DONTWAIT)
    scene.note("arrived", bytes(received))
