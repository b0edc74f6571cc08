"""gRPC's C core under Python, by what is declared alone: a Service names the port, `shortcut: Auto`."""

from __future__ import annotations

import json
import sys

import pytest

from interop.conftest import PEERS
from interop.stage import GRPC_PORT, Stage

pytest.importorskip("grpc", reason="needs grpcio")

RPC = [sys.executable, str(PEERS / "rpc.py")]


@pytest.mark.parametrize(
    ("server", "client"), [("sync", "sync"), ("asyncio", "asyncio"), ("sync", "asyncio"), ("asyncio", "sync")]
)
def test_grpc(play: Stage, server: str, client: str) -> None:
    play.serve("interop/greeter", [*RPC, "serve", server, str(GRPC_PORT)], GRPC_PORT)
    done = json.loads(play.run("interop/caller", [*RPC, "call", client, str(GRPC_PORT)]))
    assert done["calls"] == 200 + 10 + 3 * 10 + 40
    play.expect_shortcut(allowed=["bulk"])
    if play.managed:
        found = play.account()
        assert found.opened == found.shortcut == 1
