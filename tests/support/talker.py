"""One end of a TCP connection that says what it is told to, inside a workload or outside the mesh.

As a program (`talker.py listen|connect PORT`) it obeys lines on stdin: `send HEX` (one write), `receive COUNT`,
`close`; each is answered with a line. As a module it starts that program and talks to it.
"""

from __future__ import annotations

import select
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from support.mesh import Mesh

SECONDS = 20


class Talker:
    def __init__(self, program: subprocess.Popen[str]) -> None:
        self._program = program

    def _ask(self, line: str) -> str:
        assert self._program.stdin is not None
        self._program.stdin.write(f"{line}\n")
        self._program.stdin.flush()
        return self.answer()

    def answer(self) -> str:
        assert self._program.stdout is not None
        return self._program.stdout.readline().rstrip("\n")

    def send(self, content: bytes) -> None:
        """One `send`, or as many as the kernel wants."""
        assert self._ask(f"send {content.hex()}") == "sent"

    def receive(self, count: int) -> bytes:
        return bytes.fromhex(self._ask(f"receive {count}"))

    def close(self) -> None:
        assert self._ask("close") == "closed"


@contextmanager
def conversation(mesh: Mesh, port: int, *, client: str | None, server: str | None) -> Iterator[tuple[Talker, Talker]]:
    """The client and the server, connected. A workload of None: outside the mesh."""

    def start(key: str | None, role: str) -> subprocess.Popen[str]:
        command = [sys.executable, __file__, role, str(port)]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        return mesh.exec_popen(key, command, **pipes) if key else subprocess.Popen(command, **pipes)

    with start(server, "listen") as listening:
        try:
            serving = Talker(listening)
            assert serving.answer() == "ready"
            with start(client, "connect") as connecting:
                try:
                    calling = Talker(connecting)
                    assert calling.answer() == "ready"
                    yield calling, serving
                finally:
                    connecting.kill()
        finally:
            listening.kill()


def wait(connection: socket.socket, for_what: str) -> None:
    lists = ([connection], []) if for_what == "read" else ([], [connection])
    if not any(select.select(*lists, [], SECONDS)):
        raise TimeoutError(for_what)


def connect(role: str, port: int) -> socket.socket:
    if role == "connect":
        connection = socket.socket()
        connection.setblocking(False)
        connection.connect_ex(("127.0.0.1", port))
        wait(connection, "write")
        print("ready", flush=True)
        return connection
    listener = socket.create_server(("127.0.0.1", port))
    listener.setblocking(False)
    print("ready", flush=True)
    wait(listener, "read")
    connection, _ = listener.accept()
    connection.setblocking(False)
    return connection


def main() -> None:
    connection = connect(sys.argv[1], int(sys.argv[2]))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for line in sys.stdin:
        command, _, argument = line.strip().partition(" ")
        if command == "send":
            content = bytes.fromhex(argument)
            while content:
                wait(connection, "write")
                content = content[connection.send(content) :]
            print("sent", flush=True)
        elif command == "receive":
            received = b""
            while len(received) < int(argument):
                wait(connection, "read")
                piece = connection.recv(int(argument) - len(received))
                if not piece:
                    break
                received += piece
            print(received.hex(), flush=True)
        else:
            connection.close()
            print("closed", flush=True)


if __name__ == "__main__":
    main()
