"""A gRPC service and its caller for tests that count: `grpc_calls.py serve PORT`, `grpc_calls.py call PORT COUNT`.

The caller makes COUNT unary calls of 100 bytes, one call with five answers, and one to a method that there is not.
"""

from __future__ import annotations

import sys
from concurrent import futures
from typing import Any

import grpc


class Handler(grpc.GenericRpcHandler):  # type: ignore[misc]
    def service(self, details: Any) -> Any:
        if details.method == "/test.Echo/One":
            return grpc.unary_unary_rpc_method_handler(lambda request, context: request)
        if details.method == "/test.Echo/Five":
            return grpc.unary_stream_rpc_method_handler(lambda request, context: iter([request] * 5))
        return None


def serve(port: int) -> None:
    server = grpc.server(futures.ThreadPoolExecutor(4))
    server.add_generic_rpc_handlers((Handler(),))
    server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    print("listening", flush=True)
    server.wait_for_termination()


def call(port: int, count: int) -> None:
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        one = channel.unary_unary("/test.Echo/One")
        for _ in range(count):
            assert one(bytes(100), timeout=20) == bytes(100)
        assert len(list(channel.unary_stream("/test.Echo/Five")(b"a", timeout=20))) == 5
        try:
            channel.unary_unary("/test.Echo/None")(b"", timeout=20)
        except grpc.RpcError as error:
            if error.code() is not grpc.StatusCode.UNIMPLEMENTED:
                raise


if __name__ == "__main__":
    serve(int(sys.argv[2])) if sys.argv[1] == "serve" else call(int(sys.argv[2]), int(sys.argv[3]))
