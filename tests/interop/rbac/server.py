"""A gRPC server on many ports that knows some paths: `server.py PATHS PORT…`. Prints at its end how many it handled."""

from __future__ import annotations

import signal
import sys
import threading
from concurrent import futures
from typing import Any

import grpc


class Handler(grpc.GenericRpcHandler):  # type: ignore[misc]
    def __init__(self, paths: frozenset[str]) -> None:
        self.paths = paths
        self.handled = 0
        self.lock = threading.Lock()

    def service(self, details: Any) -> Any:
        return grpc.unary_unary_rpc_method_handler(self.answer) if details.method in self.paths else None

    def answer(self, request: bytes, context: Any) -> bytes:
        with self.lock:
            self.handled += 1
        return request


def main(paths: str, *ports: str) -> None:
    handler = Handler(frozenset(paths.split(",")))
    server = grpc.server(futures.ThreadPoolExecutor(4))
    server.add_generic_rpc_handlers((handler,))
    for port in ports:
        server.add_insecure_port(f"0.0.0.0:{port}")
    over = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: over.set())
    server.start()
    print("ready", flush=True)
    over.wait()
    server.stop(1).wait()
    print(handler.handled, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
