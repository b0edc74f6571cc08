"""Echo, in the two ways in which Python programs use sockets.

    echo.py serve-asyncio|serve-blocking PORT
    echo.py talk-asyncio|talk-blocking PORT CONNECTIONS BYTES

A talker sends BYTES on each connection in writes of random size, closes its sending side, and compares what comes
back up to the end of the stream; before that it exchanges small messages one by one. It prints what it compared.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
import socket
import socketserver
import sys
import threading

HOST = "127.0.0.1"
PINGS = 50


def content(seed: int, size: int) -> bytes:
    return random.Random(seed).randbytes(size)


def pieces(seed: int, data: bytes) -> list[bytes]:
    chance = random.Random(seed)
    found, start = [], 0
    while start < len(data):
        size = chance.choice((1, 100, 4096, 30_000, 200_000))
        found.append(data[start : start + size])
        start += size
    return found


def compare(sent: bytes, received: bytes) -> None:
    if hashlib.sha256(sent).digest() != hashlib.sha256(received).digest():
        at = next((i for i, (a, b) in enumerate(zip(sent, received, strict=False)) if a != b), "the end")
        raise SystemExit(f"{len(sent)} bytes sent, {len(received)} came back, different from {at}")


# asyncio


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.close()


async def serve_asyncio(port: int) -> None:
    server = await asyncio.start_server(echo, HOST, port)
    await server.serve_forever()


async def talk_asyncio(port: int, seed: int, size: int) -> None:
    reader, writer = await asyncio.open_connection(HOST, port)
    for number in range(PINGS):
        ping = content(number, 1 + number * 7)
        writer.write(ping)
        compare(ping, await reader.readexactly(len(ping)))
    data = content(seed, size)

    async def send() -> None:
        for piece in pieces(seed, data):
            writer.write(piece)
            await writer.drain()
        writer.write_eof()

    sending = asyncio.create_task(send())
    received = bytearray()
    while block := await reader.read(50_000):
        received += block
    await sending
    compare(data, received)
    writer.close()


async def talk_all_asyncio(port: int, connections: int, size: int) -> None:
    await asyncio.gather(*(talk_asyncio(port, seed, size) for seed in range(connections)))


# Blocking


class Echo(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        while data := self.request.recv(65536):
            self.request.sendall(data)


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 64


def serve_blocking(port: int) -> None:
    with Server((HOST, port), Echo) as server:
        server.serve_forever()


def receive_exactly(sock: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        block = sock.recv(size - len(data), socket.MSG_WAITALL)
        if not block:
            raise SystemExit(f"the stream ends after {len(data)} of {size} bytes")
        data += block
    return data


def talk_blocking(port: int, seed: int, size: int) -> None:
    with socket.create_connection((HOST, port)) as sock:
        for number in range(PINGS):
            ping = content(number, 1 + number * 7)
            sock.sendall(ping)
            compare(ping, receive_exactly(sock, len(ping)))
        data = content(seed, size)

        def send() -> None:
            for piece in pieces(seed, data):
                sock.sendall(piece)
            sock.shutdown(socket.SHUT_WR)

        sending = threading.Thread(target=send)
        sending.start()
        received = bytearray()
        while block := sock.recv(50_000):
            received += block
        sending.join()
        compare(data, received)


def talk_all_blocking(port: int, connections: int, size: int) -> None:
    failed: list[BaseException] = []

    def talk(seed: int) -> None:
        try:
            talk_blocking(port, seed, size)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=talk, args=(seed,)) for seed in range(connections)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failed:
        raise failed[0]


def main() -> None:
    mode, port = sys.argv[1], int(sys.argv[2])
    if mode == "serve-asyncio":
        asyncio.run(serve_asyncio(port))
    elif mode == "serve-blocking":
        serve_blocking(port)
    else:
        connections, size = int(sys.argv[3]), int(sys.argv[4])
        if mode == "talk-asyncio":
            asyncio.run(talk_all_asyncio(port, connections, size))
        else:
            talk_all_blocking(port, connections, size)
        print(json.dumps({"connections": connections, "bytes": connections * size}))


main()
