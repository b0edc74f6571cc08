"""Python: asyncio takes part in the short-cut, blocking sockets are left out, both work."""

from __future__ import annotations

import json
import sys

import pytest

from interop.conftest import PEERS, Payload
from interop.stage import BLOCKING, CLIENT, PORT, SERVER, Stage

ECHO = [sys.executable, str(PEERS / "echo.py")]
WEB = [sys.executable, str(PEERS / "web_blocking.py")]
CONNECTIONS = 6
BYTES = 3_000_000


def echo(play: Stage, server: str, client: str) -> None:
    play.serve(SERVER, [*ECHO, f"serve-{server}", str(PORT)], PORT)
    output = play.run(CLIENT, [*ECHO, f"talk-{client}", str(PORT), str(CONNECTIONS), str(BYTES)])
    assert json.loads(output) == {"connections": CONNECTIONS, "bytes": CONNECTIONS * BYTES}
    if play.managed:
        assert play.account().opened == CONNECTIONS


def test_asyncio_streams(play: Stage) -> None:
    echo(play, "asyncio", "asyncio")
    play.expect_shortcut(allowed=["bulk"])
    if play.managed:
        assert play.account().shortcut == CONNECTIONS


@pytest.mark.parametrize(
    ("server", "client", "reason"),
    [
        ("blocking", "blocking", "client_blocking"),
        ("asyncio", "blocking", "client_blocking"),
        ("blocking", "asyncio", "server_blocking"),
    ],
)
def test_blocking_sockets(play: Stage, server: str, client: str, reason: str) -> None:
    echo(play, server, client)
    play.expect_left_out(reason)


def fetch(play: Stage, files: Payload) -> None:
    output = play.run(CLIENT, [*WEB, "fetch", f"http://127.0.0.1:{PORT}", str(files.folder)])
    assert json.loads(output) == {"requests": 31 * 4}


def test_http_server_and_urllib(play: Stage, files: Payload) -> None:
    play.serve(SERVER, [*WEB, "serve", str(PORT), str(files.folder)], PORT)
    fetch(play, files)
    play.expect_left_out(*BLOCKING)


def test_a_client_that_blocks_once_connected(play: Stage) -> None:
    """It waits in recv while its own bytes still drain: nothing but data may wake it (hiredis fails on EAGAIN)."""
    turned = [sys.executable, str(PEERS / "turned.py")]
    play.serve(SERVER, [*turned, "serve", str(PORT)], PORT)
    assert play.run(CLIENT, [*turned, "upload", str(PORT), "20"]) == "20\n"
    play.expect_sound(allowed=["reader_blocking"])


def test_urllib_with_and_without_a_timeout(play: Stage, files: Payload) -> None:
    web = [sys.executable, str(PEERS / "web_asyncio.py"), str(PORT), str(files.folder)]
    play.serve(SERVER, web, PORT)
    fetch(play, files)
    # With a time-out, Python's sockets are non-blocking underneath and take part.
    play.expect_shortcut(allowed=["bulk", "client_blocking"])
