"""A gRPC server, grpcio's C core, that tells which of its handlers run: `grpc_witness.py PORT`.

It has `/secret.Svc/Get` and `/open.Svc/Get`. Prints "ready", then {"path": …} a line when a handler runs.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from concurrent import futures

import grpc

METHODS = ("/secret.Svc/Get", "/open.Svc/Get")


def tell(path: str) -> grpc.RpcMethodHandler:
    def run(_requests: Iterator[bytes], _context: grpc.ServicerContext) -> Iterator[bytes]:
        os.write(sys.stdout.fileno(), json.dumps({"path": path}).encode() + b"\n")  # at once: handlers are threads
        return iter(())

    # Without waiting for a message, as a unary method would.
    return grpc.stream_stream_rpc_method_handler(run)


class Handlers(grpc.GenericRpcHandler):  # type: ignore[misc]
    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        return tell(details.method) if details.method in METHODS else None


def main(port: str) -> None:
    server = grpc.server(futures.ThreadPoolExecutor(4))
    server.add_generic_rpc_handlers((Handlers(),))
    server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    print("ready", flush=True)
    server.wait_for_termination()


if __name__ == "__main__":
    main(*sys.argv[1:])
