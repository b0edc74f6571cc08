"""Scenarios: the calls that move bytes, and what they return."""

from __future__ import annotations

import array
import contextlib
import ctypes
import fcntl
import os
import select
import socket
import tempfile
import time

from harness import QUIET, Scene, content, digest, libc, scenario

MSG_ZEROCOPY = 0x4000000
SO_ZEROCOPY = 60
SIOCOUTQ = 0x5411


@scenario()
def echo(scene: Scene) -> None:
    client, server = scene.pair()
    for size in (1, 100, 5000):
        scene.attempt("request sent", client.send, content(size))
        scene.note("request", scene.read(server, size))
        scene.attempt("answer sent", server.send, content(size, 1))
        scene.note("answer", scene.read(client, size))


@scenario()
def empty_calls(scene: Scene) -> None:
    client, server = scene.pair()
    scene.attempt("send nothing", client.send, b"")
    scene.attempt("send an empty vector", client.sendmsg, [])
    scene.quiet()
    scene.note("events", scene.events(server))
    client.send(b"abc")
    scene.note("unread", scene.arrive(server, 3))
    scene.attempt("receive nothing", server.recv, 0)
    scene.attempt("receive into nothing", server.recv_into, bytearray())
    scene.note("still unread", scene.unread(server))


@scenario("nonblocking", "warm")
def nothing_to_receive(scene: Scene) -> None:
    client, server = scene.pair()
    for flags in (0, socket.MSG_PEEK, socket.MSG_WAITALL, socket.MSG_ERRQUEUE, socket.MSG_OOB):
        scene.attempt(f"receive, flags {flags:#x}", server.recv, 10, flags)
        scene.attempt(f"receive at the client, flags {flags:#x}", client.recv, 10, flags)


@scenario("blocking", "turned")
def dontwait(scene: Scene) -> None:
    client, server = scene.pair()
    scene.attempt("receive", server.recv, 10, socket.MSG_DONTWAIT)
    client.send(b"abc")
    scene.arrive(server, 3)
    scene.attempt("receive what is there", server.recv, 10, socket.MSG_DONTWAIT)


@scenario()
def unread_bytes(scene: Scene) -> None:
    client, server = scene.pair()
    scene.note("none", scene.unread(server))
    client.send(content(10))
    client.send(content(20))
    scene.note("two messages", scene.arrive(server, 30))
    scene.attempt("part of one", server.recv, 5)
    scene.note("the rest", scene.unread(server))
    scene.attempt("across both", server.recv, 20)
    scene.note("the end", scene.unread(server))
    scene.attempt("all", server.recv, 100)
    scene.note("none again", scene.unread(server))


@scenario()
def messages_merge(scene: Scene) -> None:
    client, server = scene.pair()
    for i in range(50):
        client.send(content(i + 1, i))
    scene.note("unread", scene.arrive(server, 1275))
    scene.attempt("at once", server.recv, 4096)


@scenario()
def peek(scene: Scene) -> None:
    client, server = scene.pair()
    client.send(b"first")
    client.send(b"second")
    scene.note("unread", scene.arrive(server, 11))
    scene.attempt("peek at a part", server.recv, 3, socket.MSG_PEEK)
    scene.attempt("peek across", server.recv, 8, socket.MSG_PEEK)
    scene.attempt("peek beyond", server.recv, 100, socket.MSG_PEEK)
    scene.note("still unread", scene.unread(server))
    scene.attempt("read a part", server.recv, 7)
    scene.attempt("peek at the rest", server.recv, 100, socket.MSG_PEEK)
    scene.attempt("read the rest", server.recv, 100)


@scenario()
def truncate(scene: Scene) -> None:
    """MSG_TRUNC throws the bytes away."""
    client, server = scene.pair()
    client.send(b"0123456789")
    scene.arrive(server, 10)
    buffer = ctypes.create_string_buffer(16)
    scene.note("returned", libc.recv(server.fileno(), buffer, 4, socket.MSG_TRUNC))
    scene.note("copied", buffer.raw[:4])
    scene.note("unread", scene.unread(server))
    scene.attempt("the rest", server.recv, 100)


@scenario()
def wait_for_all_that_is_there(scene: Scene) -> None:
    client, server = scene.pair()
    client.send(content(60))
    client.send(content(40, 1))
    scene.arrive(server, 100)
    scene.attempt("received", server.recv, 100, socket.MSG_WAITALL)


@scenario("nonblocking", "warm")
def wait_for_all_does_not_wait(scene: Scene) -> None:
    client, server = scene.pair()
    client.send(content(30))
    scene.arrive(server, 30)
    scene.attempt("received", server.recv, 100, socket.MSG_WAITALL)


@scenario()
def vectors(scene: Scene) -> None:
    client, server = scene.pair()
    pieces = [content(size, size) for size in (1, 0, 1000, 3, 4096, 77)]
    scene.attempt("writev", os.writev, client.fileno(), pieces)
    scene.arrive(server, 5177)
    targets = [bytearray(size) for size in (10, 0, 5000, 100, 1000)]
    scene.attempt("readv", os.readv, server.fileno(), targets)
    scene.note("filled", [digest(bytes(each)) for each in targets])


@scenario()
def many_pieces(scene: Scene) -> None:
    client, server = scene.pair()
    pieces = [content(i % 37 + 1, i) for i in range(1024)]
    total = sum(map(len, pieces))
    scene.attempt("1024 pieces", client.sendmsg, pieces)
    scene.note("arrived", scene.read(server, total))
    scene.attempt("1025 pieces", client.sendmsg, [b"x"] * 1025)


@scenario()
def received_message(scene: Scene) -> None:
    """recvmsg: flags, no address, no ancillary data unless asked for."""
    client, server = scene.pair()
    client.send(b"hello")
    scene.arrive(server, 5)
    scene.attempt("recvmsg", server.recvmsg, 3, 256)
    scene.attempt("recvfrom", server.recvfrom, 100)
    scene.attempt("sendto with an address", client.sendto, b"x", ("127.0.0.1", 9))
    scene.note("arrived", scene.read(server, 1))


@scenario()
def many_messages(scene: Scene) -> None:
    """sendmmsg and recvmmsg."""
    client, server = scene.pair()

    class Message(ctypes.Structure):
        _fields_ = (
            ("name", ctypes.c_void_p),
            ("name_length", ctypes.c_uint),
            ("vector", ctypes.c_void_p),
            ("count", ctypes.c_size_t),
            ("control", ctypes.c_void_p),
            ("control_length", ctypes.c_size_t),
            ("flags", ctypes.c_int),
            ("padding", ctypes.c_int),
            ("size", ctypes.c_uint),
        )

    buffers = [ctypes.create_string_buffer(content(size, size), size) for size in (5, 10, 15)]
    vectors_ = [(ctypes.c_uint64 * 2)(ctypes.addressof(each), len(each)) for each in buffers]
    messages = (Message * 3)(
        *(Message(vector=ctypes.addressof(each), count=1) for each in vectors_),
    )
    scene.note("sent", libc.sendmmsg(client.fileno(), messages, 3, 0))
    scene.note("sizes", [each.size for each in messages])
    scene.arrive(server, 30)
    scene.note("received", libc.recvmmsg(server.fileno(), messages, 3, socket.MSG_DONTWAIT, None))
    scene.note("bytes of the first", messages[0].size)


@scenario()
def bad_pointers(scene: Scene) -> None:
    client, server = scene.pair()
    for label, call, end in (("send", libc.send, client), ("recv", libc.recv, server)):
        if label == "recv":
            client.send(b"intact")
            scene.arrive(server, 6)
        ctypes.set_errno(0)
        result = call(end.fileno(), ctypes.c_void_p(8), 6, 0)
        scene.note(label, [result, ctypes.get_errno()])
    scene.note("unread", scene.unread(server))
    scene.note("arrived", scene.read(server, 6))


@scenario()
def send_file(scene: Scene) -> None:
    client, server = scene.pair()
    data = content(300_000)
    with tempfile.TemporaryFile() as file:
        file.write(data)
        file.flush()
        scene.attempt("a part", os.sendfile, client.fileno(), file.fileno(), 100, 5000)
        scene.note("arrived", scene.read(server, 5000) == data[100:5100])
        scene.attempt("at the end", os.sendfile, client.fileno(), file.fileno(), len(data), 5000)
        sent, received = 0, bytearray()
        while sent < len(data):
            scene.wait(client, select.POLLOUT)
            sent += os.sendfile(client.fileno(), file.fileno(), sent, 20_000)
            received += scene.read(server, sent - len(received))
        scene.note("all", bytes(received) == data)


@scenario()
def splice_into_the_socket(scene: Scene) -> None:
    client, server = scene.pair()
    reading, writing = os.pipe()
    os.write(writing, b"through a pipe")
    scene.attempt("splice", os.splice, reading, client.fileno(), 14)
    scene.note("arrived", scene.arrive(server, 14) and scene.read(server, 14))


@scenario()
def splice_out_of_the_socket(scene: Scene) -> None:
    client, server = scene.pair()
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    client.send(b"into a pipe")
    scene.arrive(server, 11)
    scene.attempt("splice", os.splice, server.fileno(), writing, 11)
    scene.attempt("from the pipe", os.read, reading, 100)


@scenario()
def zero_copy_send(scene: Scene) -> None:
    client, server = scene.pair()
    scene.attempt("ask for it", client.setsockopt, socket.SOL_SOCKET, SO_ZEROCOPY, 1)
    data = content(20_000)
    scene.attempt("send", client.send, data, MSG_ZEROCOPY)
    scene.note("arrived", scene.read(server, len(data)) == data)
    scene.note("completion", "ERR" in scene.until(client, "ERR"))
    found = scene.attempt("error queue", lambda: len(client.recvmsg(100, 200, socket.MSG_ERRQUEUE)[1]))
    scene.note("completions", found)


@scenario()
def held_back_pieces(scene: Scene) -> None:
    """MSG_MORE."""
    client, server = scene.pair(nodelay=True)
    scene.attempt("more to come", client.send, b"begin", socket.MSG_MORE)
    time.sleep(QUIET)
    scene.note("held back", scene.unread(server) == 0)
    scene.attempt("the last", client.send, b"end")
    scene.note("arrived", scene.read(server, 8))


@scenario()
def cork(scene: Scene) -> None:
    client, server = scene.pair()
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 1)
    client.send(b"one")
    client.send(b"two")
    time.sleep(QUIET)
    scene.note("held back", scene.unread(server) == 0)
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 0)
    scene.note("arrived", scene.read(server, 6))


@scenario()
def no_delay(scene: Scene) -> None:
    client, server = scene.pair(nodelay=True)
    scene.note("set", client.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
    for i in range(20):
        client.send(bytes([i]))
        scene.note("arrived", scene.read(server, 1)[0])


@scenario()
def nagle(scene: Scene) -> None:
    client, server = scene.pair()
    for i in range(20):
        client.send(bytes([i]) * 3)
    scene.note("arrived", list(scene.read(server, 60)))


@scenario()
def big_both_ways(scene: Scene) -> None:
    client, server = scene.pair()
    data = {client: content(3_000_000, 1), server: content(2_000_000, 2)}
    sent = {client: 0, server: 0}
    received = {client: bytearray(), server: bytearray()}
    deadline = time.monotonic() + 8
    while time.monotonic() < deadline and (
        len(received[server]) < len(data[client]) or len(received[client]) < len(data[server])
    ):
        for end in (client, server):
            with contextlib.suppress(BlockingIOError):
                part = data[end][sent[end] : sent[end] + 50_000]
                sent[end] += end.send(part, socket.MSG_DONTWAIT) if part else 0
            with contextlib.suppress(BlockingIOError):
                received[end] += end.recv(70_000, socket.MSG_DONTWAIT)
    scene.note("to the server", bytes(received[server]))
    scene.note("to the client", bytes(received[client]))


@scenario()
def queue_of_the_sender(scene: Scene) -> None:
    """SIOCOUTQ: nothing is left to send once everything has arrived."""
    client, server = scene.pair()
    client.send(content(1000))
    scene.arrive(server, 1000)
    scene.quiet()
    value = array.array("i", [-1])
    fcntl.ioctl(client, SIOCOUTQ, value)
    scene.note("unsent or unacknowledged", value[0])


@scenario()
def queue_of_the_sender_while_nobody_reads(scene: Scene) -> None:
    client, server = scene.pair(receive=8192, send=16384)
    scene.fill(client)
    value = array.array("i", [-1])
    fcntl.ioctl(client, SIOCOUTQ, value)
    scene.note("some", value[0] > 0)
    scene.note("reader has some", scene.unread(server) > 0)


@scenario()
def full_then_drained(scene: Scene) -> None:
    client, server = scene.pair(receive=16384, send=32768)
    sent = scene.fill(client)
    scene.note("sent some", sent > 10_000)
    scene.attempt("no more", client.send, b"x" * 4096, socket.MSG_DONTWAIT)
    scene.note("writable", scene.events(client))
    scene.note("drained", len(scene.read(server, sent)) == sent)
    scene.note("writable again", scene.until(client, "OUT"))
    scene.attempt("more", client.send, b"more")
    scene.note("arrived", scene.read(server, 4))


@scenario()
def writable_only_after_enough_was_read(scene: Scene) -> None:
    client, server = scene.pair(receive=16384, send=32768)
    sent = scene.fill(client)
    scene.attempt("a byte read", lambda: len(server.recv(1)))
    scene.quiet()
    scene.note("writable after a byte", scene.events(client))
    scene.read(server, sent - 1)
    scene.note("writable after all", scene.until(client, "OUT"))


@scenario()
def partial_write_when_nearly_full(scene: Scene) -> None:
    client, server = scene.pair(receive=16384, send=32768)
    data = content(4_000_000)
    sent = client.send(data, socket.MSG_DONTWAIT)
    scene.note("took a part", 0 < sent < len(data))
    scene.note("the part arrived", scene.read(server, sent) == data[:sent])
