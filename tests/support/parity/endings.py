"""Scenarios: shutdown, close, reset, death."""

from __future__ import annotations

import os
import signal
import socket
import struct
import time

from harness import SOON, Scene, content, scenario


def close_with_reset(end: socket.socket) -> None:
    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    end.close()


def aftermath(scene: Scene, end: socket.socket) -> None:
    """Everything that an end can still learn."""
    scene.attempt("error", end.getsockopt, socket.SOL_SOCKET, socket.SO_ERROR)
    scene.attempt("receive", end.recv, 100, socket.MSG_DONTWAIT)
    scene.attempt("receive again", end.recv, 100, socket.MSG_DONTWAIT)
    scene.attempt("send", end.send, b"x", socket.MSG_NOSIGNAL)
    scene.attempt("peer", lambda: end.getpeername()[0])
    scene.note("events", scene.events(end))


@scenario()
def half_close(scene: Scene) -> None:
    client, server = scene.pair()
    client.send(b"the last")
    client.shutdown(socket.SHUT_WR)
    scene.note("events", scene.until(server, "RDHUP"))
    scene.note("arrived", scene.read(server, 8))
    scene.attempt("the end", server.recv, 10)
    scene.attempt("the end again", server.recv, 10)
    scene.attempt("peek at the end", server.recv, 10, socket.MSG_PEEK)
    for i in range(3):
        server.send(content(100, i))
        scene.note("the other way", scene.read(client, 100))
    server.shutdown(socket.SHUT_WR)
    scene.note("both", scene.until(client, "HUP"))
    scene.attempt("the other end", client.recv, 10)
    scene.note("events at the server", scene.events(server))


@scenario()
def half_close_by_the_server(scene: Scene) -> None:
    client, server = scene.pair()
    client.send(b"request")
    scene.read(server, 7)
    server.send(b"answer")
    server.shutdown(socket.SHUT_WR)
    scene.note("events", scene.until(client, "RDHUP"))
    scene.note("arrived", scene.read(client, 100))
    client.send(b"goes on")
    scene.note("the other way", scene.read(server, 7))


@scenario()
def writing_after_shutdown(scene: Scene) -> None:
    client, server = scene.pair()
    client.send(b"one")
    scene.read(server, 3)
    signals: list[int] = []
    signal.signal(signal.SIGPIPE, lambda number, _: signals.append(number))
    client.shutdown(socket.SHUT_WR)
    scene.attempt("send", client.send, b"x")
    scene.note("signals", len(signals))
    scene.attempt("send without a signal", client.send, b"x", socket.MSG_NOSIGNAL)
    scene.note("signals then", len(signals))
    scene.attempt("shutdown again", client.shutdown, socket.SHUT_WR)
    scene.note("events", scene.events(client))


@scenario()
def broken_pipe_kills(scene: Scene) -> None:
    client, server = scene.pair()

    def child() -> None:
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        client.shutdown(socket.SHUT_WR)
        client.send(b"x")

    pid = scene.child(child)
    _, status = os.waitpid(pid, 0)
    scene.note("killed by", os.WTERMSIG(status) if os.WIFSIGNALED(status) else "nothing")
    scene.note("events", scene.until(server, "RDHUP"))


@scenario()
def shutdown_of_reading(scene: Scene) -> None:
    client, server = scene.pair()
    client.send(b"unread")
    scene.arrive(server, 6)
    server.shutdown(socket.SHUT_RD)
    scene.note("events", scene.events(server))
    scene.attempt("what was there", server.recv, 100, socket.MSG_DONTWAIT)
    scene.attempt("then", server.recv, 100, socket.MSG_DONTWAIT)
    scene.attempt("the peer sends", client.send, b"more")
    scene.quiet()
    scene.attempt("comes", server.recv, 100, socket.MSG_DONTWAIT)
    server.send(b"answer")
    scene.note("the other way", scene.read(client, 6))


@scenario()
def shutdown_of_both(scene: Scene) -> None:
    client, server = scene.pair()
    client.send(b"x")
    scene.read(server, 1)
    client.shutdown(socket.SHUT_RDWR)
    scene.note("events", scene.events(client))
    scene.note("the peer", scene.until(server, "RDHUP"))
    scene.attempt("receive", client.recv, 10, socket.MSG_DONTWAIT)
    scene.attempt("send", client.send, b"x", socket.MSG_NOSIGNAL)
    scene.attempt("the peer reads", server.recv, 10)


@scenario()
def close_after_everything_was_read(scene: Scene) -> None:
    client, server = scene.pair()
    client.send(b"request")
    scene.read(server, 7)
    server.close()
    scene.note("events", scene.until(client, "RDHUP"))
    scene.attempt("the end", client.recv, 10)
    scene.attempt("first write", client.send, b"x", socket.MSG_NOSIGNAL)
    scene.note("events then", scene.until(client, "ERR"))
    scene.attempt("second write", client.send, b"x", socket.MSG_NOSIGNAL)
    aftermath(scene, client)


@scenario()
def close_right_after_the_last_write(scene: Scene) -> None:
    client, server = scene.pair()
    data = content(50_000)
    sent = client.send(data)
    client.close()
    scene.note("arrived", scene.read(server, 100_000) == data[:sent])
    scene.attempt("the end", server.recv, 10)


@scenario()
def close_with_unread_data(scene: Scene) -> None:
    client, server = scene.pair()
    client.send(b"nobody reads this")
    scene.arrive(server, 17)
    server.close()
    scene.note("events", scene.until(client, "RDHUP"))
    aftermath(scene, client)


@scenario()
def close_with_unread_data_of_a_full_queue(scene: Scene) -> None:
    client, server = scene.pair(receive=8192, send=16384)
    scene.fill(client)
    server.close()
    begun = time.monotonic()
    scene.note("events", scene.until(client, "HUP"))
    scene.note("soon", time.monotonic() - begun < SOON)
    scene.attempt("send", client.send, b"x", socket.MSG_NOSIGNAL | socket.MSG_DONTWAIT)


@scenario()
def reset(scene: Scene) -> None:
    client, server = scene.pair()
    client.send(b"x")
    scene.read(server, 1)
    close_with_reset(server)
    scene.note("events", scene.until(client, "ERR"))
    aftermath(scene, client)


@scenario()
def reset_with_data_on_the_way(scene: Scene) -> None:
    """The reset comes when there is something to read."""
    client, server = scene.pair()
    server.send(b"read me first")
    scene.note("unread", scene.arrive(client, 13))
    close_with_reset(server)
    scene.note("events", scene.until(client, "ERR"))
    scene.note("unread then", scene.unread(client))
    scene.attempt("receive", client.recv, 100, socket.MSG_DONTWAIT)
    scene.attempt("receive again", client.recv, 100, socket.MSG_DONTWAIT)
    scene.attempt("and again", client.recv, 100, socket.MSG_DONTWAIT)


@scenario()
def reset_ends_a_full_queue(scene: Scene) -> None:
    client, server = scene.pair(receive=8192, send=16384)
    scene.fill(client)
    close_with_reset(server)
    scene.note("events", scene.until(client, "ERR"))
    aftermath(scene, client)


@scenario()
def connect_and_close(scene: Scene) -> None:
    listening = scene.listener()
    client = scene.fresh()
    scene.connect(client, listening.getsockname())
    client.close()
    server = scene.accept(listening)
    scene.settle(server)
    scene.note("events", scene.until(server, "RDHUP"))
    scene.attempt("receive", server.recv, 10)


@scenario()
def connect_send_and_close(scene: Scene) -> None:
    listening = scene.listener()
    client = scene.fresh()
    scene.connect(client, listening.getsockname())
    client.send(b"fire and forget")
    client.close()
    scene.quiet()
    server = scene.accept(listening)
    scene.settle(server)
    scene.note("arrived", scene.read(server, 100))
    scene.attempt("the end", server.recv, 10)


@scenario()
def connect_and_reset(scene: Scene) -> None:
    listening = scene.listener()
    client = scene.fresh()
    scene.connect(client, listening.getsockname())
    close_with_reset(client)
    scene.quiet()
    server = scene.accept(listening)
    scene.note("events", scene.events(server))
    scene.attempt("receive", server.recv, 10, socket.MSG_DONTWAIT)


@scenario()
def lingering_close(scene: Scene) -> None:
    client, server = scene.pair()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 2))
    client.send(content(10_000))
    begun = time.monotonic()
    client.close()
    scene.note("soon", time.monotonic() - begun < SOON)
    scene.note("arrived", scene.read(server, 20_000))


@scenario()
def both_close_at_once(scene: Scene) -> None:
    client, server = scene.pair()
    for end in (client, server):
        end.send(b"crossing")
    for end in (client, server):
        end.shutdown(socket.SHUT_WR)
    for end in (client, server):
        scene.note("arrived", scene.read(end, 100))
        scene.note("events", scene.until(end, "HUP"))


def peer_that_waits(scene: Scene, client: socket.socket, server: socket.socket) -> int:
    """A process that owns the server's end alone and does nothing with it."""

    def child() -> None:
        client.close()
        time.sleep(60)

    pid = scene.child(child)
    server.close()
    return pid


@scenario()
def peer_killed(scene: Scene) -> None:
    client, server = scene.pair()
    client.send(b"x")
    scene.read(server, 1)
    pid = peer_that_waits(scene, client, server)
    scene.quiet()
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    scene.note("events", scene.until(client, "RDHUP"))
    scene.attempt("receive", client.recv, 10, socket.MSG_DONTWAIT)


@scenario()
def peer_killed_with_unread_data(scene: Scene) -> None:
    client, server = scene.pair()
    client.send(b"nobody reads this")
    scene.arrive(server, 17)
    pid = peer_that_waits(scene, client, server)
    scene.quiet()
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    scene.note("events", scene.until(client, "RDHUP"))
    aftermath(scene, client)


@scenario()
def writer_killed(scene: Scene) -> None:
    client, server = scene.pair()
    data = content(5000)

    def work() -> None:
        server.send(data)
        time.sleep(60)

    pid = scene.child(work)
    server.close()
    scene.arrive(client, 5000)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    scene.note("arrived", scene.read(client, 10_000) == data)
    scene.attempt("the end", client.recv, 10)


@scenario()
def leftovers_after_half_close_by_both(scene: Scene) -> None:
    """Data that is unread when both directions have ended stays readable."""
    client, server = scene.pair()
    client.send(b"from the client")
    server.send(b"from the server")
    scene.arrive(client, 15)
    scene.arrive(server, 15)
    client.shutdown(socket.SHUT_WR)
    server.shutdown(socket.SHUT_WR)
    scene.until(client, "HUP")
    scene.note("unread", [scene.unread(client), scene.unread(server)])
    scene.note("client", scene.read(client, 100))
    scene.note("server", scene.read(server, 100))


@scenario()
def epoll_after_close(scene: Scene) -> None:
    """FIN after data: a reader that gets readable once must find both."""
    client, server = scene.pair()
    client.send(b"data")
    client.close()
    scene.until(server, "RDHUP")
    scene.note("first", server.recv(2))
    scene.note("events", scene.events(server))
    scene.note("second", server.recv(100))
    scene.note("events then", scene.events(server))
    scene.attempt("the end", server.recv, 100)
