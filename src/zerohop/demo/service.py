"""The demo's two programs: a gRPC server and a closed-loop client on grpcio.

python -m zerohop.demo.service server ADDRESS PORT
python -m zerohop.demo.service client ADDRESS PORT SECONDS

Both print one JSON object a line. Exit status 77 when grpcio is missing.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from concurrent import futures
from typing import Any, Final

from zerohop.errors import EXIT_UNSUPPORTED

try:
    import grpc
except ImportError:
    print("grpcio is missing", file=sys.stderr)
    sys.exit(EXIT_UNSUPPORTED)

METHOD: Final = "/demo.Greeter/SayHello"
REPORT_SECONDS: Final = 0.25
CALL_TIMEOUT_SECONDS: Final = 10.0
# A connection of its own for every run, as two services that were just started would have.
CHANNEL_OPTIONS: Final = (("grpc.use_local_subchannel_pool", 1),)


def greet(request: bytes, context: Any) -> bytes:
    return b"Hello " + request


class Greeter(grpc.GenericRpcHandler):  # type: ignore[misc]
    """`demo.Greeter`, without generated code: messages are bytes."""

    def service(self, details: Any) -> Any:
        return grpc.unary_unary_rpc_method_handler(greet) if details.method == METHOD else None


def serve(address: str, port: int) -> None:
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=2), handlers=(Greeter(),))
    server.add_insecure_port(f"{address}:{port}")
    server.start()
    done = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: done.set())
    print(json.dumps({"listening": port}), flush=True)
    done.wait()
    server.stop(grace=None).wait()


def call(address: str, port: int, seconds: float) -> None:
    """Calls without a pause, compares every reply, and reports latencies in microseconds as it goes."""
    latencies: list[float] = []
    failures = 0
    with grpc.insecure_channel(f"{address}:{port}", options=CHANNEL_OPTIONS) as channel:
        say_hello = channel.unary_unary(METHOD)
        greeting = say_hello(b"warm-up", timeout=CALL_TIMEOUT_SECONDS, wait_for_ready=True)
        if greeting != b"Hello warm-up":
            failures += 1
        begin = reported = time.monotonic()
        while (now := time.monotonic()) < begin + seconds:
            if now >= reported + REPORT_SECONDS:
                _report(latencies, failures, now - reported)
                latencies, failures, reported = [], 0, now
            name = os.urandom(16)
            started = time.perf_counter()
            try:
                right = say_hello(name, timeout=CALL_TIMEOUT_SECONDS) == b"Hello " + name
            except grpc.RpcError as error:
                print(f"call failed: {error}", file=sys.stderr)
                right = False
            latencies.append((time.perf_counter() - started) * 1e6)
            failures += not right
        _report(latencies, failures, time.monotonic() - reported)


def _report(latencies: list[float], failures: int, seconds: float) -> None:
    rounded = [round(each, 1) for each in latencies]
    print(json.dumps({"latencies_us": rounded, "failures": failures, "seconds": seconds}), flush=True)


if __name__ == "__main__":
    if sys.argv[1] == "server":
        serve(sys.argv[2], int(sys.argv[3]))
    else:
        call(sys.argv[2], int(sys.argv[3]), float(sys.argv[4]))
