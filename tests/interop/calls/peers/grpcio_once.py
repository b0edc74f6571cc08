"""grpcio: one unary call of each path, whatever it ends with: `HOST PORT PATH...`. Prints what clients print.

The request is for `Slow`, and asks for more time than anybody has.
"""

from __future__ import annotations

import sys

import contract
import grpc

MILLISECONDS = 60_000


def main(host: str, port: str, *paths: str) -> None:
    tally = contract.Tally()
    request = contract.pack_number(MILLISECONDS)
    with grpc.insecure_channel(f"{host}:{port}", options=contract.OPTIONS) as channel:
        for path in paths:
            call = channel.unary_unary(path)
            try:
                answer = call(request)
                tally.add(path, 0, [len(request)], [len(answer)])
            except grpc.RpcError as error:
                tally.add(path, int(error.code().value[0]), [len(request)], [])
    tally.show()


if __name__ == "__main__":
    main(*sys.argv[1:])
