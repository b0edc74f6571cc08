"""Scenarios: one socket in several descriptors and processes."""

from __future__ import annotations

import os
import socket
import time

from harness import QUIET, Scene, scenario


@scenario()
def duplicates(scene: Scene) -> None:
    client, server = scene.pair()
    copy = os.dup(client.fileno())
    client.close()
    scene.attempt("write to the copy", os.write, copy, b"still open")
    scene.note("arrived", scene.read(server, 10))
    scene.note("events", scene.events(server))
    os.close(copy)
    scene.note("the end", scene.until(server, "RDHUP"))
    scene.attempt("received", server.recv, 10)


@scenario()
def a_child_writes(scene: Scene) -> None:
    client, server = scene.pair()

    def work() -> None:
        client.send(b"from the child")
        time.sleep(QUIET)

    child = scene.child(work)
    client.close()
    scene.note("arrived", scene.read(server, 14))
    scene.note("open while the child lives", scene.events(server))
    os.waitpid(child, 0)
    scene.note("the end", scene.until(server, "RDHUP"))


@scenario()
def a_child_reads(scene: Scene) -> None:
    client, server = scene.pair()

    def child() -> None:
        scene.read(server, 5)
        server.send(b"child has read")

    pid = scene.child(child)
    client.send(b"hello")
    scene.note("answer", scene.read(client, 14))
    os.waitpid(pid, 0)
    client.send(b"again")
    scene.note("the parent reads", scene.read(server, 5))


@scenario()
def descriptor_passed(scene: Scene) -> None:
    """SCM_RIGHTS: the socket goes to another process and is used there."""
    client, server = scene.pair()
    here, there = socket.socketpair()

    def child() -> None:
        _, fds, _, _ = socket.recv_fds(there, 1, 1)
        with socket.socket(fileno=fds[0]) as passed:
            passed.send(b"got " + scene.read(passed, 5))

    pid = scene.child(child)
    socket.send_fds(here, [b"x"], [server.fileno()])
    server.close()
    client.send(b"hello")
    scene.note("answer", scene.read(client, 9))
    os.waitpid(pid, 0)
    scene.note("the end", scene.until(client, "RDHUP"))


@scenario()
def file_calls(scene: Scene) -> None:
    client, server = scene.pair()
    scene.attempt("write", os.write, client.fileno(), b"plain")
    scene.arrive(server, 5)
    scene.attempt("read", os.read, server.fileno(), 100)
    scene.attempt("pread", os.pread, server.fileno(), 10, 0)
    scene.attempt("pwrite", os.pwrite, client.fileno(), b"x", 0)
    scene.attempt("lseek", os.lseek, client.fileno(), 0, 0)
    scene.attempt("fsync", os.fsync, client.fileno())
