"""grpcio with asyncio: peers/README.md says what it does."""

from __future__ import annotations

import asyncio
import collections
import json
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import Any

import contract
import grpc
from contract import check, message, pack_number, path

GRACE_SECONDS = 1


class Peer(grpc.GenericRpcHandler):
    """The methods, and how often each was reached."""

    def __init__(self) -> None:
        self.handled: collections.Counter[str] = collections.Counter()
        self.endings: collections.Counter[str] = collections.Counter()

    def service(self, details: Any) -> Any:
        service, _, name = details.method.rpartition("/")
        handlers: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
            "Unary": (grpc.unary_unary_rpc_method_handler, self.unary),
            "ServerStream": (grpc.unary_stream_rpc_method_handler, self.server_stream),
            "ClientStream": (grpc.stream_unary_rpc_method_handler, self.client_stream),
            "BidiStream": (grpc.stream_stream_rpc_method_handler, self.bidi_stream),
            "Fail": (grpc.unary_unary_rpc_method_handler, self.fail),
            "FailLate": (grpc.unary_stream_rpc_method_handler, self.fail_late),
            "Crash": (grpc.unary_unary_rpc_method_handler, self.crash),
            "Metadata": (grpc.unary_unary_rpc_method_handler, self.metadata),
            "Slow": (grpc.unary_unary_rpc_method_handler, self.slow),
            "Hang": (grpc.unary_unary_rpc_method_handler, self.hang),
            "EarlyEnd": (grpc.stream_unary_rpc_method_handler, self.early_end),
        }
        if service != f"/{contract.SERVICE}" or name not in handlers:
            return None
        self.handled[name] += 1
        kind, function = handlers[name]
        return kind(function)

    async def unary(self, request: bytes, context: Any) -> bytes:
        return request

    async def server_stream(self, request: bytes, context: Any) -> AsyncIterator[bytes]:
        count, size = contract.unpack_stream(request)
        data = message(size)
        for _ in range(count):
            yield data

    async def client_stream(self, requests: AsyncIterator[bytes], context: Any) -> bytes:
        sizes = [len(each) async for each in requests]
        return contract.pack_sum(len(sizes), sum(sizes))

    async def bidi_stream(self, requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        async for each in requests:
            yield each

    async def fail(self, request: bytes, context: Any) -> bytes:
        if request[0]:
            await context.abort(contract.status_code(request[0]), "as asked for")
        return b""

    async def fail_late(self, request: bytes, context: Any) -> AsyncIterator[bytes]:
        yield b"late"
        if request[0]:
            await context.abort(contract.status_code(request[0]), "as asked for")

    async def crash(self, request: bytes, context: Any) -> bytes:
        raise RuntimeError("on purpose")

    async def metadata(self, request: bytes, context: Any) -> bytes:
        found = [(key, value) for key, value in context.invocation_metadata() if key.startswith("x-")]
        await context.send_initial_metadata(found)
        context.set_trailing_metadata(found)
        return pack_number(len(found))

    async def slow(self, request: bytes, context: Any) -> bytes:
        await asyncio.sleep(contract.unpack_number(request) / 1000)
        return request

    async def hang(self, request: bytes, context: Any) -> bytes:
        try:
            await context.send_initial_metadata(())
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.endings[contract.ending(context.time_remaining())] += 1
            raise
        return b""

    async def early_end(self, requests: AsyncIterator[bytes], context: Any) -> bytes:
        return contract.pack_sum(1, len(await anext(aiter(requests))))


async def serve(host: str, port: str, *options: str) -> None:
    """`options`: NAME=NUMBER, of the server's channel arguments."""
    peer = Peer()
    server = grpc.aio.server(options=contract.channel_options(options))
    server.add_generic_rpc_handlers((peer,))
    server.add_insecure_port(f"{host}:{port}")
    over = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, over.set)
    await server.start()
    await over.wait()
    await server.stop(GRACE_SECONDS)
    print(json.dumps({"handled": peer.handled, **{name: peer.endings[name] for name in ("cancelled", "expired")}}))


# Calls


async def several(messages: Iterable[bytes]) -> AsyncIterator[bytes]:
    for each in messages:
        yield each


async def listed(answers: Any) -> list[bytes]:
    return [each async for each in answers]


async def shapes(channel: Any, tally: contract.Tally) -> None:
    unary, out = channel.unary_unary(path("Unary")), channel.unary_stream(path("ServerStream"))
    gather, both = channel.stream_unary(path("ClientStream")), channel.stream_stream(path("BidiStream"))
    for size in contract.SIZES:
        count = contract.STREAMED
        data = message(size)
        check("unary", await unary(data), data)
        tally.add(path("Unary"), 0, [size], [size])
        request = contract.pack_stream(count, size)
        check("answers", await listed(out(request)), [data] * count)
        tally.add(path("ServerStream"), 0, [len(request)], [size] * count)
        answer = contract.pack_sum(count, count * size)
        check("requests", await gather(several([data] * count)), answer)
        tally.add(path("ClientStream"), 0, [size] * count, [len(answer)])
        check("both", await listed(both(several([data] * count))), [data] * count)
        tally.add(path("BidiStream"), 0, [size] * count, [size] * count)
    # Streams without a message.
    check("no answers", await listed(out(contract.pack_stream(0, 0))), [])
    tally.add(path("ServerStream"), 0, [8], [])
    check("no requests", await gather(several(())), contract.pack_sum(0, 0))
    tally.add(path("ClientStream"), 0, [], [12])
    check("nothing", await listed(both(several(()))), [])
    tally.add(path("BidiStream"), 0, [], [])
    await together(channel, tally)
    await metadata(channel, tally)


async def together(channel: Any, tally: contract.Tally) -> None:
    """Streams that are all open before the first one ends."""
    sizes = range(contract.CONCURRENT)
    calls = [channel.stream_stream(path("BidiStream"))() for _ in sizes]
    for _ in range(2):
        for size, call in zip(sizes, calls, strict=True):
            await call.write(message(size))
        for size, call in zip(sizes, calls, strict=True):
            check("together", await call.read(), message(size))
    for size, call in zip(sizes, calls, strict=True):
        await call.done_writing()
        check("together", await call.read(), grpc.aio.EOF)
        check("together", await status_of(call), 0)
        tally.add(path("BidiStream"), 0, [size] * 2, [size] * 2)


async def metadata(channel: Any, tally: contract.Tally) -> None:
    entries = contract.entries()
    for _ in range(3):
        call = channel.unary_unary(path("Metadata"))(b"", metadata=entries)
        check("metadata", contract.unpack_number(await call), len(entries))
        for found in (await call.initial_metadata(), await call.trailing_metadata()):
            check("metadata", sorted(tuple(each) for each in found if each[0].startswith("x-")), sorted(entries))
        tally.add(path("Metadata"), 0, [0], [4])


async def endings(channel: Any, tally: contract.Tally) -> None:
    for status in contract.STATUSES:
        check("status", await status_of(channel.unary_unary(path("Fail"))(bytes((status,)))), status)
        tally.add(path("Fail"), status, [1], [] if status else [0])
        late = channel.unary_stream(path("FailLate"))(bytes((status,)))
        check("late", await late.read(), b"late")
        check("late status", await status_of(late), status)
        tally.add(path("FailLate"), status, [1], [4])
    for name, status in contract.WITHOUT_ANSWER:
        for size in range(contract.REPEATS):
            check(name, await status_of(channel.unary_unary(name)(message(size))), status)
            tally.add(name, status, [size], [])
    await cancelled(channel, tally)
    await expired(channel, tally)
    await early(channel, tally)


async def cancelled(channel: Any, tally: contract.Tally) -> None:
    for size in range(contract.REPEATS):
        hanging = channel.unary_stream(path("Hang"))(message(size))
        await hanging.initial_metadata()  # it has reached the handler
        hanging.cancel()
        check("cancelled", await hanging.code(), grpc.StatusCode.CANCELLED)
        tally.add(path("Hang"), contract.CANCELLED, [size], [])

        both = channel.stream_stream(path("BidiStream"))()
        for _ in range(3):
            await both.write(message(size))
            check("before it is cancelled", await both.read(), message(size))
        both.cancel()
        tally.add(path("BidiStream"), contract.CANCELLED, [size] * 3, [size] * 3)

        out = channel.unary_stream(path("ServerStream"))(contract.ENDLESS)
        await out.read()
        out.cancel()
        # How many had been sent by then, nobody knows here.
        tally.add(path("ServerStream"), contract.CANCELLED, [len(contract.ENDLESS)], None)


async def expired(channel: Any, tally: contract.Tally) -> None:
    for seconds in contract.TIMEOUTS:
        calls = [channel.unary_unary(path("Hang"))(b"never", timeout=seconds) for _ in range(contract.REPEATS)]
        for each in calls:
            tally.add_expired(path("Hang"), await status_of(each), 5)


async def early(channel: Any, tally: contract.Tally) -> None:
    for _ in range(contract.REPEATS):
        call = channel.stream_unary(path("EarlyEnd"))()
        # No more than this: a write that meets the end makes grpcio.aio forget the response, and say INTERNAL.
        await call.write(message(100))
        check("early end", await call, contract.pack_sum(1, 100))
        tally.add(path("EarlyEnd"), 0, [100], [12])


async def status_of(call: Any) -> int:
    return int((await call.code()).value[0])


async def reuse(channel: Any, tally: contract.Tally, count: str) -> None:
    unary = channel.unary_unary(path("Unary"))
    for number in range(int(count)):
        data = message(number % 1_000)
        check("unary", await unary(data), data)
        tally.add(path("Unary"), 0, [len(data)], [len(data)])


async def gzip(channel: Any, tally: contract.Tally) -> None:
    unary = channel.unary_unary(path("Unary"))
    for size in (1_000, 10_000, 1_000_000):
        check("compressed", await unary(bytes(size), compression=grpc.Compression.Gzip), bytes(size))
        tally.add_compressed(path("Unary"), 0, 1, 1)
    both = channel.stream_stream(path("BidiStream"))
    for size in (0, 1, 4_000):
        # What gets no shorter is sent as it is.
        data = [message(size)] * 3
        check("not compressed", await listed(both(several(data), compression=grpc.Compression.Gzip)), data)
        tally.add(path("BidiStream"), 0, [size] * 3, [size] * 3)


async def pings(channel: Any, tally: contract.Tally, milliseconds: str) -> None:
    for each in (int(milliseconds), 1):
        # The second one waits for a connection, where the first one has lost its own.
        status = await status_of(channel.unary_unary(path("Slow"))(pack_number(each), wait_for_ready=True))
        tally.add(path("Slow"), status, [4], [] if status else [4])


async def load(channel: Any, tally: contract.Tally, count: str) -> None:
    """Servers come and go meanwhile. A call that found none is not known to have been sent, or how far."""
    unary = channel.unary_unary(path("Unary"))
    remaining = iter(range(int(count)))

    async def some() -> None:
        for number in remaining:
            size = number % 1_000
            status = await status_of(unary(message(size), wait_for_ready=True))
            if status == contract.UNAVAILABLE:
                tally.add_uncertain(path("Unary"), status)
            else:
                tally.add(path("Unary"), status, [size], [] if status else [size])

    await asyncio.gather(*(some() for _ in range(contract.LOADED)))


async def judged(
    unary: Any, tally: contract.Tally, number: int, size: int, details: str = contract.DENIAL, **options: Any
) -> None:
    """Call `number`, which is denied, with `details`, if its caller may not make it."""
    name, allowed = contract.caller(number)
    call = unary(message(size), metadata=[("x-caller", name)], **options)
    status = await status_of(call)
    check("status", status, 0 if allowed else contract.PERMISSION_DENIED)
    if allowed:
        check("allowed", await call, message(size))
        tally.add(path("Unary"), 0, [size], [size])
    else:
        check("details", await call.details(), details)
        tally.add(path("Unary"), status, None, [])


async def denials(channel: Any, tally: contract.Tally, count: str, details: str = contract.DENIAL) -> None:
    """Several callers at once, every other call denied by who it says to be from."""
    unary = channel.unary_unary(path("Unary"))
    numbers = iter(range(int(count)))

    async def some() -> None:
        for number in numbers:
            await judged(unary, tally, number, number * 7 % 1_000, details)

    await asyncio.gather(*(some() for _ in range(contract.LOADED)))


async def crowd(channel: Any, tally: contract.Tally, count: str, details: str = contract.DENIAL) -> None:
    """As `denials`, with a thousand calls at once of up to 60 kB, every other allowed one a stream."""
    unary, both = channel.unary_unary(path("Unary")), channel.stream_stream(path("BidiStream"))
    numbers = iter(range(int(count)))

    async def some() -> None:
        for number in numbers:
            size = number * 7919 % contract.CROWD_SIZE
            name, allowed = contract.caller(number)
            if not allowed or number % 4 != 1:
                await judged(unary, tally, number, size, details, wait_for_ready=True)
                continue
            data = [message(size), message(size % 97)]
            call = both(several(data), metadata=[("x-caller", name)], wait_for_ready=True)
            check("both", await listed(call), data)
            tally.add(path("BidiStream"), 0, [size, size % 97], [size, size % 97])

    await asyncio.gather(*(some() for _ in range(contract.CROWD)))


STORIES: dict[str, Callable[..., Awaitable[None]]] = {
    each.__name__: each for each in (shapes, endings, reuse, gzip, pings, load, denials, crowd)
}  # fmt: skip


async def call(story: str, host: str, port: str, *arguments: str) -> None:
    """`arguments`: NAME=NUMBER, of the channel's; others are the story's."""
    tally = contract.Tally()
    options = contract.channel_options(arguments)
    async with grpc.aio.insecure_channel(f"{host}:{port}", options=options) as channel:
        await STORIES[story](channel, tally, *(each for each in arguments if "=" not in each))
    tally.show()


if __name__ == "__main__":
    asyncio.run({"serve": serve, "call": call}[sys.argv[1]](*sys.argv[2:]))
