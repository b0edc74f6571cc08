"""TCP proxies between two managed ends: bytes there and back, half-closes passed on.

haproxy and Go move bytes with splice(2), which cannot see what was short-cut: under `zerohop exec` it answers EINVAL,
and both copy instead.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable

import pytest

from interop import envoy
from interop.conftest import PEERS
from interop.stage import CLIENT, PORT, PROXY, PROXY_PORT, SERVER, Stage, find, need

ECHO = [sys.executable, str(PEERS / "echo.py")]
CONNECTIONS = 6
BYTES = 3_000_000

HAPROXY = """
global
  nbthread 2
  maxconn 200
defaults
  mode tcp
  timeout connect 5s
  timeout client 30s
  timeout server 30s
  {options}
frontend in
  bind 127.0.0.1:{proxy_port}
  default_backend out
backend out
  server echo 127.0.0.1:{port}
"""


def echo_through(play: Stage, proxy: list[str]) -> None:
    play.serve(SERVER, [*ECHO, "serve-asyncio", str(PORT)], PORT)
    play.serve(PROXY, proxy, PROXY_PORT)
    output = play.run(CLIENT, [*ECHO, "talk-asyncio", str(PROXY_PORT), str(CONNECTIONS), str(BYTES)])
    assert json.loads(output) == {"connections": CONNECTIONS, "bytes": CONNECTIONS * BYTES}
    play.expect_shortcut(allowed=["bulk"])
    if play.managed:
        assert play.account().shortcut == 2 * CONNECTIONS


@pytest.mark.parametrize(
    "options",
    ["option splice-auto", "option splice-request\n  option splice-response", "no option splice-auto"],
    ids=["splice-auto", "splice-always", "no-splice"],
)
def test_haproxy(play: Stage, options: str) -> None:
    need("haproxy")
    path = play.folder / "haproxy.cfg"
    path.write_text(HAPROXY.format(options=options, port=PORT, proxy_port=PROXY_PORT))
    program = find("haproxy")
    assert program
    echo_through(play, [program, "-db", "-f", str(path)])


def test_go_io_copy(play: Stage, go_peer: Callable[[str], str]) -> None:
    echo_through(play, [go_peer("proxy"), str(PROXY_PORT), str(PORT)])


def test_envoy(play: Stage) -> None:
    need("envoy")
    listener = envoy.listener("127.0.0.1", PROXY_PORT, envoy.tcp_proxy("echo"))
    echo_through(play, envoy.configure(play.folder, listener, [envoy.cluster("echo", "127.0.0.1", PORT)]))
