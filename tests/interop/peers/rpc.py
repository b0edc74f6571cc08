"""gRPC with plain bytes as messages: all four call shapes, synchronous or asyncio.

    rpc.py serve sync|asyncio PORT
    rpc.py call sync|asyncio PORT      prints {"calls": n, "messages": n}

The server answers a message with its SHA-256 and the message itself; a stream of requests with one answer is
answered with the SHA-256 of them all; a request for a stream of answers is answered with pieces of itself.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
import sys
from collections.abc import AsyncIterator, Iterator
from concurrent import futures

import grpc

HOST = "127.0.0.1"
LIMIT = 8 << 20
OPTIONS = [("grpc.max_receive_message_length", LIMIT), ("grpc.max_send_message_length", LIMIT)]
SIZES = [1, 5, 100, 1_000, 4_096, 16_384, 65_537, 300_000, 1_000_000, 4_000_000]
SMALL_CALLS = 200
SECONDS = 30
PIECES = 20


def digest(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def reply(message: bytes) -> bytes:
    return digest(message) + message


def cut(message: bytes) -> list[bytes]:
    size = max(1, len(message) // PIECES)
    return [message[start : start + size] for start in range(0, len(message), size)]


def message(size: int) -> bytes:
    return random.Random(size).randbytes(size)


# Handlers


def unary(request: bytes, context: object) -> bytes:
    return reply(request)


def server_stream(request: bytes, context: object) -> Iterator[bytes]:
    yield from cut(request)


def client_stream(requests: Iterator[bytes], context: object) -> bytes:
    total = hashlib.sha256()
    for each in requests:
        total.update(each)
    return total.digest()


def both_stream(requests: Iterator[bytes], context: object) -> Iterator[bytes]:
    for each in requests:
        yield reply(each)


async def unary_async(request: bytes, context: object) -> bytes:
    return reply(request)


async def server_stream_async(request: bytes, context: object) -> AsyncIterator[bytes]:
    for piece in cut(request):
        yield piece


async def client_stream_async(requests: AsyncIterator[bytes], context: object) -> bytes:
    total = hashlib.sha256()
    async for each in requests:
        total.update(each)
    return total.digest()


async def both_stream_async(requests: AsyncIterator[bytes], context: object) -> AsyncIterator[bytes]:
    async for each in requests:
        yield reply(each)


def handlers(*functions: object) -> grpc.GenericRpcHandler:
    kinds = (
        grpc.unary_unary_rpc_method_handler,
        grpc.unary_stream_rpc_method_handler,
        grpc.stream_unary_rpc_method_handler,
        grpc.stream_stream_rpc_method_handler,
    )
    names = ("Unary", "ServerStream", "ClientStream", "BothStream")
    methods = {name: kind(function) for name, kind, function in zip(names, kinds, functions, strict=True)}
    return grpc.method_handlers_generic_handler("interop.Greeter", methods)


def serve(port: int) -> None:
    server = grpc.server(futures.ThreadPoolExecutor(8), options=OPTIONS)
    server.add_generic_rpc_handlers((handlers(unary, server_stream, client_stream, both_stream),))
    server.add_insecure_port(f"{HOST}:{port}")
    server.start()
    server.wait_for_termination()


async def serve_async(port: int) -> None:
    server = grpc.aio.server(options=OPTIONS)
    server.add_generic_rpc_handlers(
        (handlers(unary_async, server_stream_async, client_stream_async, both_stream_async),)
    )
    server.add_insecure_port(f"{HOST}:{port}")
    await server.start()
    await server.wait_for_termination()


# Calls


def check(what: str, size: int, found: bytes, expected: bytes) -> None:
    if found != expected:
        raise SystemExit(f"{what}, {size} bytes: {len(found)} bytes came, not the {len(expected)} expected")


def call(port: int) -> dict[str, int]:
    calls = messages = 0
    with grpc.insecure_channel(f"{HOST}:{port}", options=OPTIONS) as channel:
        once = channel.unary_unary("/interop.Greeter/Unary")
        out = channel.unary_stream("/interop.Greeter/ServerStream")
        gather = channel.stream_unary("/interop.Greeter/ClientStream")
        both = channel.stream_stream("/interop.Greeter/BothStream")
        for size in [7] * SMALL_CALLS + SIZES:
            check("unary", size, once(message(size), timeout=SECONDS), reply(message(size)))
            calls, messages = calls + 1, messages + 2
        for size in SIZES:
            data = message(size)
            pieces = list(out(data, timeout=SECONDS))
            check("answers", size, b"".join(pieces), data)
            check("requests", size, gather(iter(cut(data)), timeout=SECONDS), digest(data))
            answers = list(both(iter(cut(data)), timeout=SECONDS))
            check("both", size, b"".join(answers), b"".join(reply(each) for each in cut(data)))
            calls, messages = calls + 3, messages + 4 * len(pieces) + 2
        parallel = [once.future(message(size), timeout=SECONDS) for size in SIZES * 4]
        for size, future in zip(SIZES * 4, parallel, strict=True):
            check("parallel", size, future.result(), reply(message(size)))
            calls, messages = calls + 1, messages + 2
    return {"calls": calls, "messages": messages}


async def call_async(port: int) -> dict[str, int]:
    calls = messages = 0
    async with grpc.aio.insecure_channel(f"{HOST}:{port}", options=OPTIONS) as channel:
        once = channel.unary_unary("/interop.Greeter/Unary")
        out = channel.unary_stream("/interop.Greeter/ServerStream")
        gather = channel.stream_unary("/interop.Greeter/ClientStream")
        both = channel.stream_stream("/interop.Greeter/BothStream")
        for size in [7] * SMALL_CALLS + SIZES:
            check("unary", size, await once(message(size), timeout=SECONDS), reply(message(size)))
            calls, messages = calls + 1, messages + 2
        for size in SIZES:
            data = message(size)
            pieces = [each async for each in out(data, timeout=SECONDS)]
            check("answers", size, b"".join(pieces), data)
            check("requests", size, await gather(iter(cut(data)), timeout=SECONDS), digest(data))
            answers = [each async for each in both(iter(cut(data)), timeout=SECONDS)]
            check("both", size, b"".join(answers), b"".join(reply(each) for each in cut(data)))
            calls, messages = calls + 3, messages + 4 * len(pieces) + 2
        found = await asyncio.gather(*(once(message(size), timeout=SECONDS) for size in SIZES * 4))
        for size, each in zip(SIZES * 4, found, strict=True):
            check("parallel", size, each, reply(message(size)))
            calls, messages = calls + 1, messages + 2
    return {"calls": calls, "messages": messages}


def main() -> None:
    what, how, port = sys.argv[1], sys.argv[2], int(sys.argv[3])
    if what == "serve":
        asyncio.run(serve_async(port)) if how == "asyncio" else serve(port)
    else:
        print(json.dumps(asyncio.run(call_async(port)) if how == "asyncio" else call(port)))


main()
