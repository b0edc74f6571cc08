"""Uploads as many clients with a connect time-out do: connect without blocking, then block.

    turned.py serve PORT
    turned.py upload PORT ROUNDS      prints how many answers were right

The server reads at leisure, so that the client waits for its answer while its own bytes still drain.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
import select
import socket
import sys

SIZE = 16_000_000


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    digest = hashlib.sha256()
    for number in range(10**9):
        block = await reader.read(65536)
        digest.update(block)
        if not block:
            break
        if number % 8 == 0:
            await asyncio.sleep(0.001)
    writer.write(digest.digest())
    writer.close()


async def serve(port: int) -> None:
    server = await asyncio.start_server(answer, "127.0.0.1", port)
    await server.serve_forever()


def upload(port: int, body: bytes) -> bool:
    with socket.socket() as sock:
        sock.setblocking(False)
        sock.connect_ex(("127.0.0.1", port))
        select.select([], [sock], [])
        sock.setblocking(True)
        sock.sendall(body)
        sock.shutdown(socket.SHUT_WR)
        return sock.recv(100) == hashlib.sha256(body).digest()


def main() -> None:
    port = int(sys.argv[2])
    if sys.argv[1] == "serve":
        asyncio.run(serve(port))
    body = random.Random(1).randbytes(SIZE)
    print(sum(upload(port, body) for _ in range(int(sys.argv[3]))))


main()
