"""The HTTP servers and clients of Node, Java, Go and nghttp2."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from interop.conftest import PEERS, Payload
from interop.stage import CLIENT, PORT, PROXY_PORT, SERVER, Stage, located, need

H2_REQUESTS = 8000
MULTIPATH = Path("/proc/sys/net/mptcp/enabled")


def test_node(play: Stage, files: Payload) -> None:
    need("node")
    arguments = [str(PORT), str(PROXY_PORT), str(files.folder)]
    play.serve(SERVER, ["node", str(PEERS / "web.mjs"), "serve", *arguments], PORT, PROXY_PORT)
    output = play.run(CLIENT, ["node", str(PEERS / "web.mjs"), "fetch", *arguments])
    assert json.loads(output) == {"requests": 2 * (100 + 122) * 2}
    play.expect_shortcut(allowed=["bulk"])


def test_nghttp2(play: Stage, files: Payload) -> None:
    need("nghttpd", "h2load")
    play.serve(SERVER, [located("nghttpd"), "--no-tls", "-d", str(files.folder), str(PORT)], PORT)
    load = ["h2load", "-c", "8", "-m", "10", "-t", "1", "-n", str(H2_REQUESTS), f"http://127.0.0.1:{PORT}/small"]
    output = play.run(CLIENT, load)
    assert f"{H2_REQUESTS} succeeded, 0 failed, 0 errored, 0 timeout" in output, output
    assert f"({H2_REQUESTS * 1000}) data" in output
    play.expect_shortcut()


def test_java(play: Stage, files: Payload) -> None:
    need("java", "javac")
    arguments = [str(PORT), str(files.folder)]
    java = ["java", "-XX:TieredStopAtLevel=1", str(PEERS / "Web.java")]
    play.serve(SERVER, [*java, "serve", *arguments], PORT)
    output = play.run(CLIENT, [*java, "fetch", *arguments])
    assert json.loads(output) == {"requests": 2 * (50 + 62)}
    # The server accepts and waits without blocking, then switches each connection to blocking to serve it: the kernel
    # must notice and take it out.
    play.expect_shortcut(allowed=["bulk", "reader_blocking"])


@pytest.mark.parametrize("multipath", ["0", "1", "2"], ids=["tcp", "mptcp", "mptcp-listener"])
def test_go(play: Stage, files: Payload, go_peer: Callable[[str], str], multipath: str) -> None:
    """Since Go 1.24 listeners, and not dialers, use MPTCP (GODEBUG multipathtcp=2): such connections are plain TCP."""
    web = ["env", f"GODEBUG=multipathtcp={multipath}", go_peer("web")]
    arguments = [str(PORT), str(files.folder)]
    play.serve(SERVER, [*web, "serve", *arguments], PORT)
    output = play.run(CLIENT, [*web, "fetch", *arguments])
    assert json.loads(output) == {"requests": 2 * (100 + 62)}
    if multipath == "1" and MULTIPATH.exists() and MULTIPATH.read_text().strip() == "1":
        play.expect_left_out("ulp")
    else:
        play.expect_shortcut(allowed=["bulk"])
