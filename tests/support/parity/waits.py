"""Scenarios of blocking calls: what wakes them and what they return then."""

from __future__ import annotations

import socket
import struct
import time

from endings import close_with_reset
from harness import QUIET, Scene, content, scenario

BLOCKING = ("blocking", "turned")


def set_timeout(end: socket.socket, option: int, seconds: float) -> None:
    end.setsockopt(socket.SOL_SOCKET, option, struct.pack("ll", int(seconds), int(seconds % 1 * 1e6)))


@scenario(*BLOCKING)
def receive_woken_by_data(scene: Scene) -> None:
    client, server = scene.pair()
    with scene.background("received", server.recv, 100):
        client.send(b"wake up")
    server.send(b"and back")
    scene.note("back", scene.read(client, 8))


@scenario(*BLOCKING)
def receive_woken_by_the_end(scene: Scene) -> None:
    client, server = scene.pair()
    with scene.background("received", server.recv, 100):
        client.shutdown(socket.SHUT_WR)


@scenario(*BLOCKING)
def receive_woken_by_reset(scene: Scene) -> None:
    client, server = scene.pair()
    with scene.background("received", server.recv, 100):
        close_with_reset(client)


@scenario(*BLOCKING)
def receive_woken_by_own_shutdown(scene: Scene) -> None:
    client, server = scene.pair()
    with scene.background("received", server.recv, 100):
        server.shutdown(socket.SHUT_RD)
    scene.note("the client", scene.events(client))


@scenario(*BLOCKING)
def receive_of_all(scene: Scene) -> None:
    client, server = scene.pair()
    with scene.background("received", server.recv, 100, socket.MSG_WAITALL):
        for i in range(4):
            client.send(content(25, i))
            time.sleep(QUIET / 4)


@scenario(*BLOCKING)
def receive_of_all_ended(scene: Scene) -> None:
    client, server = scene.pair()
    with scene.background("received", server.recv, 100, socket.MSG_WAITALL):
        client.send(content(30))
        client.shutdown(socket.SHUT_WR)


@scenario(*BLOCKING)
def peek_waits(scene: Scene) -> None:
    client, server = scene.pair()
    with scene.background("peeked", server.recv, 100, socket.MSG_PEEK):
        client.send(b"peek")
    scene.note("still there", scene.read(server, 4))


@scenario(*BLOCKING)
def receive_times_out(scene: Scene) -> None:
    _client, server = scene.pair()
    set_timeout(server, socket.SO_RCVTIMEO, 0.3)
    begun = time.monotonic()
    scene.attempt("received", server.recv, 100)
    scene.note("in time", 0.25 <= time.monotonic() - begun < 1.5)


@scenario(*BLOCKING)
def receive_of_all_times_out(scene: Scene) -> None:
    client, server = scene.pair()
    set_timeout(server, socket.SO_RCVTIMEO, 0.3)
    client.send(content(30))
    scene.arrive(server, 30)
    begun = time.monotonic()
    scene.attempt("received", server.recv, 100, socket.MSG_WAITALL)
    scene.note("in time", 0.25 <= time.monotonic() - begun < 1.5)


@scenario(*BLOCKING)
def python_time_out(scene: Scene) -> None:
    """settimeout: Python makes the descriptor non-blocking and polls."""
    client, server = scene.pair()
    server.settimeout(0.3)
    begun = time.monotonic()
    scene.attempt("received", server.recv, 100)
    scene.note("in time", 0.25 <= time.monotonic() - begun < 1.5)
    client.send(b"late")
    scene.attempt("then", server.recv, 100)


@scenario(*BLOCKING)
def send_times_out(scene: Scene) -> None:
    client, _server = scene.pair(receive=8192, send=16384)
    set_timeout(client, socket.SO_SNDTIMEO, 0.3)
    scene.fill(client)
    begun = time.monotonic()
    scene.attempt("sent", client.send, content(100_000))
    scene.note("in time", 0.25 <= time.monotonic() - begun < 1.5)


@scenario(*BLOCKING)
def send_woken_by_reading(scene: Scene) -> None:
    client, server = scene.pair(receive=8192, send=16384)
    sent = scene.fill(client)
    with scene.background("sent", client.send, b"the last"):
        scene.note("drained", len(scene.read(server, sent)) == sent)
    scene.note("arrived", scene.read(server, 8))


@scenario(*BLOCKING)
def send_woken_by_reset(scene: Scene) -> None:
    client, server = scene.pair(receive=8192, send=16384)
    scene.fill(client)
    with scene.background("sent", client.send, content(100_000), socket.MSG_NOSIGNAL):
        close_with_reset(server)


@scenario(*BLOCKING)
def big_write_in_one_call(scene: Scene) -> None:
    client, server = scene.pair()
    data = content(5_000_000)
    with scene.background("sent", client.send, data):
        scene.note("arrived", scene.read(server, len(data)) == data)


@scenario(*BLOCKING)
def conversation(scene: Scene) -> None:
    """Both ends block; a hundred requests and answers."""
    client, server = scene.pair()

    def serve() -> int:
        count = 0
        while data := server.recv(1000):
            server.send(data.upper())
            count += 1
        return count

    with scene.background("served", serve):
        for i in range(100):
            client.send(b"request %d" % i)
            if client.recv(1000) != b"REQUEST %d" % i:
                scene.note("wrong answer", i)
        client.shutdown(socket.SHUT_WR)


def answer_when_drained(scene: Scene, sender: socket.socket, end: socket.socket) -> None:
    """One call fills the buffers; the sender waits for the answer when it is told of room to send again."""
    sent = sender.send(content(1_000_000), socket.MSG_DONTWAIT)
    with scene.background("answer", sender.recv, 100):
        scene.note("drained", len(scene.read(end, sent)) == sent)
        scene.quiet()
        end.send(b"answer")


@scenario(*BLOCKING)
def answer_after_full_buffers(scene: Scene) -> None:
    client, server = scene.pair(receive=8192, send=16384)
    answer_when_drained(scene, client, server)


@scenario(*BLOCKING)
def answer_after_a_greeting_and_full_buffers(scene: Scene) -> None:
    """The server, which does not block, speaks first, as those of mail and of databases do."""
    client, server = scene.pair(receive=8192, send=16384)
    server.setblocking(False)
    server.send(b"greeting")
    scene.note("greeting", scene.read(client, 8))
    answer_when_drained(scene, client, server)


@scenario(*BLOCKING)
def request_after_full_buffers(scene: Scene) -> None:
    """The same at the server's end: a large answer, then the next request."""
    client, server = scene.pair(receive=8192, send=16384)
    client.send(b"request")
    scene.note("request", scene.read(server, 7))
    answer_when_drained(scene, server, client)


@scenario(*BLOCKING)
def receive_beside_full_buffers(scene: Scene) -> None:
    """A thread that has been receiving since before another one began to send."""
    client, server = scene.pair(receive=8192, send=16384)
    with scene.background("answer", client.recv, 100):
        sent = scene.fill(client)
        scene.note("drained", len(scene.read(server, sent)) == sent)
        scene.quiet()
        server.send(b"answer")


@scenario("blocking")
def accept_and_connect_block(scene: Scene) -> None:
    listening = scene.listener()
    with scene.background("accepted", lambda: bool(listening.accept())):
        scene.attempt("connected", scene.fresh().connect, listening.getsockname())


@scenario()
def changes_of_mind(scene: Scene) -> None:
    """A program that switches O_NONBLOCK on and off all the time."""
    client, server = scene.pair()
    for i in range(20):
        for end in (client, server):
            end.setblocking(i % 2 == 0)
        client.send(content(100, i))
        scene.arrive(server, 100)
        scene.note("arrived", server.recv(1000) == content(100, i))
        server.send(b"answer")
        scene.arrive(client, 6)
        scene.note("answer", client.recv(1000))
