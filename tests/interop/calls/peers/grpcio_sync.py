"""grpcio with threads: peers/README.md says what it does."""

from __future__ import annotations

import collections
import json
import queue
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent import futures
from functools import partial
from typing import Any

import contract
import grpc
from contract import check, message, pack_number, path

GRACE_SECONDS = 1


class Peer(grpc.GenericRpcHandler):
    """The methods, and how often each was reached."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.handled: collections.Counter[str] = collections.Counter()
        self.endings: collections.Counter[str] = collections.Counter()

    def service(self, details: Any) -> Any:
        service, _, name = details.method.rpartition("/")
        handlers: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
            "Unary": (grpc.unary_unary_rpc_method_handler, lambda request, context: request),
            "ServerStream": (grpc.unary_stream_rpc_method_handler, self.server_stream),
            "ClientStream": (grpc.stream_unary_rpc_method_handler, self.client_stream),
            "BidiStream": (grpc.stream_stream_rpc_method_handler, lambda requests, context: requests),
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
        with self.lock:
            self.handled[name] += 1
        kind, function = handlers[name]
        return kind(function)

    def server_stream(self, request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        count, size = contract.unpack_stream(request)
        return (message(size) for _ in range(count))

    def client_stream(self, requests: Iterator[bytes], context: grpc.ServicerContext) -> bytes:
        sizes = [len(each) for each in requests]
        return contract.pack_sum(len(sizes), sum(sizes))

    def fail(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        if request[0]:
            context.abort(contract.status_code(request[0]), "as asked for")
        return b""

    def fail_late(self, request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        yield b"late"
        if request[0]:
            context.abort(contract.status_code(request[0]), "as asked for")

    def crash(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        raise RuntimeError("on purpose")

    def metadata(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        found = [(key, value) for key, value in context.invocation_metadata() if key.startswith("x-")]
        context.send_initial_metadata(found)
        context.set_trailing_metadata(found)
        return pack_number(len(found))

    def slow(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        time.sleep(contract.unpack_number(request) / 1000)
        return request

    def hang(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        over = threading.Event()
        context.send_initial_metadata(())
        if context.add_callback(over.set):
            over.wait()
        ending = contract.ending(context.time_remaining())
        with self.lock:
            self.endings[ending] += 1
        return b""

    def early_end(self, requests: Iterator[bytes], context: grpc.ServicerContext) -> bytes:
        return contract.pack_sum(1, len(next(requests)))


def serve(host: str, port: str, *options: str) -> None:
    """`options`: NAME=NUMBER, of the server's channel arguments."""
    peer = Peer()
    server = grpc.server(futures.ThreadPoolExecutor(contract.CONCURRENT), options=contract.channel_options(options))
    server.add_generic_rpc_handlers((peer,))
    server.add_insecure_port(f"{host}:{port}")
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    server.start()
    signal.sigwait({signal.SIGTERM})
    server.stop(GRACE_SECONDS).wait()
    print(json.dumps({"handled": peer.handled, **{name: peer.endings[name] for name in ("cancelled", "expired")}}))


# Calls


def shapes(channel: grpc.Channel, tally: contract.Tally) -> None:
    unary, out = channel.unary_unary(path("Unary")), channel.unary_stream(path("ServerStream"))
    gather, both = channel.stream_unary(path("ClientStream")), channel.stream_stream(path("BidiStream"))
    for size in contract.SIZES:
        data, several = message(size), contract.STREAMED
        check("unary", unary(data), data)
        tally.add(path("Unary"), 0, [size], [size])
        request = contract.pack_stream(several, size)
        check("answers", list(out(request)), [data] * several)
        tally.add(path("ServerStream"), 0, [len(request)], [size] * several)
        answer = contract.pack_sum(several, several * size)
        check("requests", gather(data for _ in range(several)), answer)
        tally.add(path("ClientStream"), 0, [size] * several, [len(answer)])
        check("both", list(both(data for _ in range(several))), [data] * several)
        tally.add(path("BidiStream"), 0, [size] * several, [size] * several)
    # Streams without a message.
    check("no answers", list(out(contract.pack_stream(0, 0))), [])
    tally.add(path("ServerStream"), 0, [8], [])
    check("no requests", gather(iter(())), contract.pack_sum(0, 0))
    tally.add(path("ClientStream"), 0, [], [12])
    check("nothing", list(both(iter(()))), [])
    tally.add(path("BidiStream"), 0, [], [])
    together(channel, tally)
    metadata(channel, tally)


def together(channel: grpc.Channel, tally: contract.Tally) -> None:
    """Streams that are all open before the first one ends."""
    sizes = range(contract.CONCURRENT)
    requests: list[queue.SimpleQueue[bytes | None]] = [queue.SimpleQueue() for _ in sizes]
    calls = [channel.stream_stream(path("BidiStream"))(iter(each.get, None)) for each in requests]
    for _ in range(2):
        for size, each in zip(sizes, requests, strict=True):
            each.put(message(size))
        for size, call in zip(sizes, calls, strict=True):
            check("together", next(call), message(size))
    for size, each, call in zip(sizes, requests, calls, strict=True):
        each.put(None)
        check("together", list(call), [])
        tally.add(path("BidiStream"), 0, [size] * 2, [size] * 2)


def metadata(channel: grpc.Channel, tally: contract.Tally) -> None:
    entries = contract.entries()
    for _ in range(3):
        answer, call = channel.unary_unary(path("Metadata")).with_call(b"", metadata=entries)
        check("metadata", contract.unpack_number(answer), len(entries))
        for found in (call.initial_metadata(), call.trailing_metadata()):
            check("metadata", sorted(tuple(each) for each in found if each[0].startswith("x-")), sorted(entries))
        tally.add(path("Metadata"), 0, [0], [4])


def endings(channel: grpc.Channel, tally: contract.Tally) -> None:
    fail, late = channel.unary_unary(path("Fail")), channel.unary_stream(path("FailLate"))
    for status in contract.STATUSES:
        check("status", status_of(fail, bytes((status,))), status)
        tally.add(path("Fail"), status, [1], [] if status else [0])
        answers = late(bytes((status,)))
        check("late", next(answers), b"late")
        check("late status", status_of(list, answers), status)
        tally.add(path("FailLate"), status, [1], [4])
    for name, status in contract.WITHOUT_ANSWER:
        for size in range(contract.REPEATS):
            check(name, status_of(channel.unary_unary(name), message(size)), status)
            tally.add(name, status, [size], [])
    cancelled(channel, tally)
    expired(channel, tally)
    early(channel, tally)


def cancelled(channel: grpc.Channel, tally: contract.Tally) -> None:
    for size in range(contract.REPEATS):
        hanging = channel.unary_stream(path("Hang"))(message(size))
        hanging.initial_metadata()  # it has reached the handler
        hanging.cancel()
        tally.add(path("Hang"), contract.CANCELLED, [size], [])

        requests: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        both = channel.stream_stream(path("BidiStream"))(iter(requests.get, None))
        for _ in range(3):
            requests.put(message(size))
            check("before it is cancelled", next(both), message(size))
        both.cancel()
        requests.put(None)
        tally.add(path("BidiStream"), contract.CANCELLED, [size] * 3, [size] * 3)

        out = channel.unary_stream(path("ServerStream"))(contract.ENDLESS)
        next(out)
        out.cancel()
        # How many had been sent by then, nobody knows here.
        tally.add(path("ServerStream"), contract.CANCELLED, [len(contract.ENDLESS)], None)


def expired(channel: grpc.Channel, tally: contract.Tally) -> None:
    hang = channel.unary_unary(path("Hang"))
    for seconds in contract.TIMEOUTS:
        several = [hang.future(b"never", timeout=seconds) for _ in range(contract.REPEATS)]
        for each in several:
            tally.add_expired(path("Hang"), status_of(each.result), 5)


def early(channel: grpc.Channel, tally: contract.Tally) -> None:
    over = threading.Event()

    def requests() -> Iterator[bytes]:
        while not over.wait(0.001):
            yield message(100)

    for _ in range(contract.REPEATS):
        over.clear()
        check("early end", channel.stream_unary(path("EarlyEnd"))(requests()), contract.pack_sum(1, 100))
        over.set()
        # How many requests the server took before it ended, nobody knows here.
        tally.add(path("EarlyEnd"), 0, None, [12])


def status_of(call: Callable[..., object], *arguments: object, **options: object) -> int:
    try:
        call(*arguments, **options)
    except grpc.RpcError as error:
        return int(error.code().value[0])
    return 0


def reuse(channel: grpc.Channel, tally: contract.Tally, count: str) -> None:
    unary = channel.unary_unary(path("Unary"))
    for number in range(int(count)):
        data = message(number % 1_000)
        check("unary", unary(data), data)
        tally.add(path("Unary"), 0, [len(data)], [len(data)])


def gzip(channel: grpc.Channel, tally: contract.Tally) -> None:
    unary = channel.unary_unary(path("Unary"))
    for size in (1_000, 10_000, 1_000_000):
        check("compressed", unary(bytes(size), compression=grpc.Compression.Gzip), bytes(size))
        tally.add_compressed(path("Unary"), 0, 1, 1)
    both = channel.stream_stream(path("BidiStream"))
    for size in (0, 1, 4_000):
        # What gets no shorter is sent as it is.
        data = [message(size)] * 3
        check("not compressed", list(both(iter(data), compression=grpc.Compression.Gzip)), data)
        tally.add(path("BidiStream"), 0, [size] * 3, [size] * 3)


def pings(channel: grpc.Channel, tally: contract.Tally, milliseconds: str) -> None:
    slow = channel.unary_unary(path("Slow"))
    for each in (int(milliseconds), 1):
        # The second one waits for a connection, where the first one has lost its own.
        status = status_of(slow, pack_number(each), wait_for_ready=True)
        tally.add(path("Slow"), status, [4], [] if status else [4])


def load(channel: grpc.Channel, tally: contract.Tally, count: str) -> None:
    """Servers come and go meanwhile. A call that found none is not known to have been sent, or how far."""
    unary = channel.unary_unary(path("Unary"))
    remaining = iter(range(int(count)))
    lock = threading.Lock()

    def some() -> None:
        while True:
            with lock:
                number = next(remaining, None)
            if number is None:
                return
            size = number % 1_000
            status = status_of(partial(unary, wait_for_ready=True), message(size))
            with lock:
                if status == contract.UNAVAILABLE:
                    tally.add_uncertain(path("Unary"), status)
                else:
                    tally.add(path("Unary"), status, [size], [] if status else [size])

    callers = [threading.Thread(target=some) for _ in range(contract.LOADED)]
    for each in callers:
        each.start()
    for each in callers:
        each.join()


def denials(channel: grpc.Channel, tally: contract.Tally, count: str) -> None:
    """Several callers at once, every other call denied by who it says to be from."""
    unary, out = channel.unary_unary(path("Unary")), channel.unary_stream(path("ServerStream"))
    both = channel.stream_stream(path("BidiStream"))
    numbers = iter(range(int(count)))
    lock = threading.Lock()

    def made(number: int, metadata: list[tuple[str, str]]) -> tuple[str, list[int], list[int]]:
        size = number * 7 % 1_000
        data = message(size)
        match number % 4:
            case 0 | 1:
                check("allowed", unary(data, metadata=metadata), data)
                return "Unary", [size], [size]
            case 2:
                check("allowed", list(out(contract.pack_stream(3, size), metadata=metadata)), [data] * 3)
                return "ServerStream", [8], [size] * 3
        check("allowed", list(both(iter([data] * 2), metadata=metadata)), [data] * 2)
        return "BidiStream", [size] * 2, [size] * 2

    def some() -> None:
        while True:
            with lock:
                number = next(numbers, None)
            if number is None:
                return
            name, allowed = contract.caller(number // 3)
            try:
                method, requests, responses = made(number, [("x-caller", name)])
                check("a denied call", allowed, True)
                with lock:
                    tally.add(path(method), 0, requests, responses)
            except grpc.RpcError as error:
                check("an allowed call", (allowed, error.details()), (False, contract.DENIAL))
                method = ("Unary", "Unary", "ServerStream", "BidiStream")[number % 4]
                with lock:
                    tally.add(path(method), int(error.code().value[0]), None, [])

    callers = [threading.Thread(target=some) for _ in range(contract.LOADED)]
    for each in callers:
        each.start()
    for each in callers:
        each.join()


STORIES: dict[str, Callable[..., None]] = {
    each.__name__: each for each in (shapes, endings, reuse, gzip, pings, load, denials)
}  # fmt: skip


def call(story: str, host: str, port: str, *arguments: str) -> None:
    """`arguments`: NAME=NUMBER, of the channel's; others are the story's."""
    tally = contract.Tally()
    options = contract.channel_options(arguments)
    with grpc.insecure_channel(f"{host}:{port}", options=options) as channel:
        STORIES[story](channel, tally, *(each for each in arguments if "=" not in each))
    tally.show()


if __name__ == "__main__":
    {"serve": serve, "call": call}[sys.argv[1]](*sys.argv[2:])
