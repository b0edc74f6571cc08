"""The HTTP servers and clients of Node, Java and Go."""

from __future__ import annotations

import json
from collections.abc import Callable

from interop.conftest import PEERS, Payload
from interop.stage import CLIENT, PORT, PROXY_PORT, SERVER, Stage, need


def test_node(play: Stage, files: Payload) -> None:
    need("node")
    arguments = [str(PORT), str(PROXY_PORT), str(files.folder)]
    play.serve(SERVER, ["node", str(PEERS / "web.mjs"), "serve", *arguments], PORT, PROXY_PORT)
    output = play.run(CLIENT, ["node", str(PEERS / "web.mjs"), "fetch", *arguments])
    assert json.loads(output) == {"requests": 2 * (100 + 122) * 2}
    play.expect_shortcut(allowed=["bulk"])


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


def test_go(play: Stage, files: Payload, go_peer: Callable[[str], str]) -> None:
    web = go_peer("web")
    arguments = [str(PORT), str(files.folder)]
    play.serve(SERVER, [web, "serve", *arguments], PORT)
    output = play.run(CLIENT, [web, "fetch", *arguments])
    assert json.loads(output) == {"requests": 2 * (100 + 62)}
    play.expect_shortcut(allowed=["bulk"])
